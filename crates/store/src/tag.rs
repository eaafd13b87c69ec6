//! Tags of tunnels and shares as rows, by which lists find them.
//!
//! Invariant: in every snapshot of the database, the table of tags has what the column `tags` of each row says.

use crate::{
    Result, Tags,
    bulk::{list, parts},
    field::Argument,
    write::Write,
};
use sqlx::AssertSqlSafe;
use wicketgate_model::FrontdoorId;

/// A row whose tags change.
pub(crate) struct Tagged<'a> {
    pub(crate) id: &'a str,
    pub(crate) frontdoor: FrontdoorId,
    pub(crate) before: Option<&'a Tags>,
    pub(crate) tags: &'a Tags,
}

impl Write {
    /// Writes the tags that have changed into the table.
    pub(crate) async fn write_tags(&mut self, table: &'static str, row: Tagged<'_>) -> Result<()> {
        let Tagged { id, frontdoor, before, tags } = row;
        let (none, id) = (Tags::new(), id.to_owned());
        let before = before.unwrap_or(&none);
        let removed: Vec<_> = before.keys().filter(|name| !tags.contains_key(*name)).collect();
        for part in parts(&removed) {
            let delete = format!(
                "DELETE FROM {table} WHERE name IN ({}) AND id = ${}",
                list(part.len()),
                part.len() + 1
            );
            let names = part.iter().map(|name| *name as &dyn Argument);
            let values: Vec<_> = names.chain([&id as &dyn Argument]).collect();
            self.tx.execute(AssertSqlSafe(delete), &values).await?;
        }
        let changed: Vec<_> = tags.iter().filter(|(name, value)| before.get(*name) != Some(*value)).collect();
        if changed.is_empty() {
            return Ok(());
        }
        let mut values: Vec<&dyn Argument> = vec![&id, &frontdoor];
        let mut rows = Vec::new();
        for (name, value) in changed {
            rows.push(format!("($1, ${}, ${}, $2)", values.len() + 1, values.len() + 2));
            values.extend([name as &dyn Argument, value as &dyn Argument]);
        }
        // The names of tables, and the numbers of values, are those of this program.
        let insert = format!(
            "INSERT INTO {table} (id, name, value, frontdoor) VALUES {} \
             ON CONFLICT (id, name) DO UPDATE SET value = excluded.value",
            rows.join(", ")
        );
        self.tx.execute(AssertSqlSafe(insert), &values).await.map(drop)
    }
}
