//! Declarations of values that are written as text or as a number.

/// Declares a closed set of values, each with its text in the API, in the database and in JSON, and what it means.
#[macro_export]
macro_rules! text_enum {
    ($(#[$doc:meta])* $name:ident { $($(#[doc = $meaning:literal])* $variant:ident = $text:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name { $($(#[doc = $meaning])* $variant),+ }

        impl $name {
            pub const ALL: [Self; [$($text),+].len()] = [$(Self::$variant),+];
            /// The texts of [`Self::ALL`].
            pub const NAMES: &'static [&'static str] = &[$($text),+];

            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }

            /// What the documentation of the value says.
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$variant => concat!($($meaning),*).trim_ascii()),+ }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl std::str::FromStr for $name {
            type Err = $crate::Invalid;

            fn from_str(text: &str) -> Result<Self, $crate::Invalid> {
                match text {
                    $($text => Ok(Self::$variant),)+
                    _ => Err($crate::Invalid::none_of(Self::NAMES)),
                }
            }
        }
    };
}

/// Serializes a value as the text that `Display` writes and `FromStr` reads.
macro_rules! serde_as_text {
    ($($name:ty),+) => { $(
        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                let text = <String as serde::Deserialize>::deserialize(d)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    )+ };
}

/// Declares a newtype whose text is that of its only field.
macro_rules! transparent {
    ($($(#[$doc:meta])* $name:ident($inner:ty);)+) => { $(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name($inner);

        impl $name {
            pub fn get(self) -> $inner {
                self.0
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.0.fmt(f)
            }
        }
    )+ };
}

/// Declares a number within bounds.
macro_rules! bounded {
    ($(#[$doc:meta])* $name:ident($number:ty), $least:literal ..= $most:literal) => {
        transparent! {
            #[derive(serde::Serialize, serde::Deserialize)]
            #[serde(try_from = "i64")]
            $(#[$doc])*
            $name($number);
        }

        impl TryFrom<i64> for $name {
            type Error = $crate::Invalid;

            fn try_from(n: i64) -> Result<Self, $crate::Invalid> {
                let number = <$number>::try_from(n).ok().filter(|n| ($least..=$most).contains(n));
                let rule = concat!("must be between ", $least, " and ", $most);
                number.map(Self).ok_or_else(|| $crate::Invalid::new(rule))
            }
        }
    };
}
/// A text that keeps a rule. `$check` answers whether it does, `$rule` says it, worded to follow the property.
macro_rules! text {
    ($(#[$doc:meta])* $name:ident, $check:expr, $rule:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(String);

        impl $name {
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl std::str::FromStr for $name {
            type Err = $crate::Invalid;

            fn from_str(s: &str) -> Result<Self, $crate::Invalid> {
                let check: fn(&str) -> bool = $check;
                if check(s) { Ok(Self(s.to_owned())) } else { Err($crate::Invalid::new($rule)) }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&self.0)
            }
        }

        $crate::declare::serde_as_text!($name);
    };
}
pub(crate) use {bounded, serde_as_text, text, transparent};
