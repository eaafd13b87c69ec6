//! Pages of docs/reference: a test holds that each is what the code says, and `make reference` updates it.

use std::{env, fs};

use anyhow::{Context as _, Result, ensure};

use crate::checkout::in_checkout;

/// Fails while docs/reference/`page` differs, or writes it if asked to.
///
/// # Errors
///
/// The page is out of date, or cannot be written.
pub fn hold(page: &str, wanted: &str) -> Result<()> {
    let file = in_checkout("docs/reference")?.join(page);
    if env::var_os("UPDATE_REFERENCE").is_some() {
        return fs::write(&file, wanted).with_context(|| format!("cannot write {}", file.display()));
    }
    let is = fs::read_to_string(&file).unwrap_or_default();
    ensure!(is == wanted, "docs/reference/{page} is out of date: run `make reference`");
    Ok(())
}

/// A row for each family of a scrape in Prometheus' text format that has a sample: the name with the labels, the type and the help.
pub fn metrics(classic: &str) -> String {
    let mut page = String::from("| metric | type | meaning |\n|---|---|---|\n");
    let mut help = "";
    for line in classic.lines() {
        if let Some((_, words)) = line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' ')) {
            help = words.trim_end_matches('.');
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' '))
        {
            page += &format!("| `{name}{}` | {kind} | {help} |\n", labels(classic, name));
        }
    }
    page
}

/// Of all samples of the family, in braces.
fn labels(classic: &str, name: &str) -> String {
    let samples = classic.lines().filter_map(|line| {
        let rest = line.strip_prefix(name)?;
        ["", "_bucket", "_sum", "_count"]
            .iter()
            .find_map(|suffix| rest.strip_prefix(suffix)?.strip_prefix('{'))
    });
    let mut names: Vec<&str> = Vec::new();
    for name in samples.flat_map(|labels| labels.split("=\"")) {
        let name = name.rsplit(',').next().unwrap_or(name);
        let is_label = !name.is_empty() && name.chars().all(|c| c.is_ascii_lowercase() || c == '_');
        if is_label && name != "le" && !names.contains(&name) {
            names.push(name);
        }
    }
    if names.is_empty() { String::new() } else { format!("{{{}}}", names.join(",")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_family_has_a_row_with_its_labels() {
        let scrape = "# HELP a_total How many.\n# TYPE a_total counter\na_total{share=\"x,y=1\",reason=\"z\"} 1\n\
                      # HELP a How long.\n# TYPE a histogram\na_bucket{le=\"1\",share=\"x\"} 2\na_sum{share=\"x\"} 1\n\
                      # HELP b Whether.\n# TYPE b gauge\nb 1\n";
        let rows = "| `a_total{share,reason}` | counter | How many |\n| `a{share}` | histogram | How long |\n| `b` | gauge | Whether |\n";
        assert!(metrics(scrape).ends_with(rows), "{}", metrics(scrape));
    }
}
