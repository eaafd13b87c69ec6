//! Rows as structs: each field is a column of the same name, or a struct of several columns.

use crate::{
    Result,
    field::{Argument, Field, Found, get},
};
use sqlx::any::AnyRow;
use wicketgate_model::{
    Detail, HealthCheck, HealthCheckType, ProbeInterval, Problem, ShareOptions, Standing, Status,
};
use wicketgate_seal::SecretKeys;

/// What a statement returns.
pub(crate) trait FromRow: Sized {
    fn from_row(row: &Found<'_>) -> Result<Self>;
}

/// Reads a row, whose sealed values these keys open.
pub(crate) fn opened<T: FromRow>(row: &AnyRow, keys: &SecretKeys) -> Result<T> {
    T::from_row(&Found { row, keys })
}

/// A field of a row.
pub(crate) trait FromColumns: Sized {
    /// `column` is the name of the field.
    fn from_columns(row: &Found<'_>, column: &'static str) -> Result<Self>;
}

/// A field of what is written to a row.
pub(crate) trait ToColumns {
    fn to_columns<'a>(&'a self, column: &'static str, to: &mut Vec<Assignment<'a>>);
}

/// A column and the value to write to it.
pub(crate) type Assignment<'a> = (&'static str, &'a dyn Argument);

impl<T: Field> FromColumns for T {
    fn from_columns(row: &Found<'_>, column: &'static str) -> Result<Self> {
        get(row, column)
    }
}

impl<T: Argument + Field> ToColumns for T {
    fn to_columns<'a>(&'a self, column: &'static str, to: &mut Vec<Assignment<'a>>) {
        to.push((column, self));
    }
}

/// Makes a struct readable: from a row, and as a field of another struct.
macro_rules! read {
    ($name:ident { $($field:ident),+ $(,)? }) => {
        impl $crate::row::FromRow for $name {
            fn from_row(row: &$crate::field::Found<'_>) -> $crate::Result<Self> {
                Ok(Self { $($field: $crate::row::FromColumns::from_columns(row, stringify!($field))?,)+ })
            }
        }

        impl $crate::row::FromColumns for $name {
            fn from_columns(row: &$crate::field::Found<'_>, _: &'static str) -> $crate::Result<Self> {
                $crate::row::FromRow::from_row(row)
            }
        }
    };
}
pub(crate) use read;

/// Makes a struct writable.
macro_rules! write {
    ($name:ident { $($field:ident),+ $(,)? }) => {
        impl $crate::row::ToColumns for $name {
            fn to_columns<'a>(&'a self, _: &'static str, to: &mut Vec<$crate::row::Assignment<'a>>) {
                $($crate::row::ToColumns::to_columns(&self.$field, stringify!($field), to);)+
            }
        }
    };
}
pub(crate) use write;

/// Declares structs that are read from rows.
macro_rules! rows {
    ($($(#[$meta:meta])* $vis:vis struct $name:ident {
        $($(#[$field_meta:meta])* $field_vis:vis $field:ident: $type:ty,)+
    })+) => { $(
        $(#[$meta])*
        $vis struct $name { $($(#[$field_meta])* $field_vis $field: $type,)+ }

        $crate::row::read!($name { $($field),+ });
    )+ };
}
pub(crate) use rows;

/// Declares structs that are read from rows and written to them: what a caller decides about a resource.
macro_rules! specs {
    ($($(#[$meta:meta])* $vis:vis struct $name:ident {
        $($(#[$field_meta:meta])* $field_vis:vis $field:ident: $type:ty,)+
    })+) => {
        $crate::row::rows! {
            $($(#[$meta])* $vis struct $name { $($(#[$field_meta])* $field_vis $field: $type,)+ })+
        }
        $($crate::row::write!($name { $($field),+ });)+
    };
}
pub(crate) use specs;

/// Columns of a statement, by their positions.
macro_rules! tuples {
    ($(($($name:ident $position:literal),+))+) => { $(
        impl<$($name: Field),+> FromRow for ($($name,)+) {
            fn from_row(row: &Found<'_>) -> Result<Self> {
                Ok(($(get::<$name>(row, $position)?,)+))
            }
        }
    )+ };
}
tuples! { (A 0) (A 0, B 1) (A 0, B 1, C 2) (A 0, B 1, C 2, D 3) }

read!(ShareOptions {
    allowed_sources,
    max_connections,
    idle_timeout_seconds,
    proxy_protocol,
    health_check,
    close_when_unserved,
});
write!(ShareOptions {
    allowed_sources,
    max_connections,
    idle_timeout_seconds,
    proxy_protocol,
    health_check,
    close_when_unserved,
});

impl FromColumns for Option<HealthCheck> {
    fn from_columns(row: &Found<'_>, column: &'static str) -> Result<Self> {
        let Some(r#type) = get(row, column)? else { return Ok(None) };
        Ok(Some(HealthCheck { r#type, interval_seconds: get(row, "probe_interval")? }))
    }
}

impl ToColumns for Option<HealthCheck> {
    fn to_columns<'a>(&'a self, column: &'static str, to: &mut Vec<Assignment<'a>>) {
        const NO_TYPE: Option<HealthCheckType> = None;
        const NO_INTERVAL: Option<ProbeInterval> = None;
        let columns: [&dyn Argument; 2] = match self {
            Some(check) => [&check.r#type, &check.interval_seconds],
            None => [&NO_TYPE, &NO_INTERVAL],
        };
        to.extend([column, "probe_interval"].into_iter().zip(columns));
    }
}

/// A row without a reason has the detail of its status.
impl FromColumns for Standing {
    fn from_columns(row: &Found<'_>, _: &'static str) -> Result<Self> {
        let (status, since) = (get(row, "status")?, get(row, "status_since")?);
        let detail = match get(row, "reason")? {
            None => Status::waiting(status, since),
            Some(reason) => {
                let message: Option<String> = get(row, "message")?;
                Some(Detail {
                    problem: Problem::new(reason, message.unwrap_or_default()),
                    since: get(row, "detail_since")?,
                })
            }
        };
        Ok(Self { status, since, observed_generation: get(row, "observed_generation")?, detail })
    }
}
