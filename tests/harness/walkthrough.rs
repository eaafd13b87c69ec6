//! The commands of a page, to be run line by line. A block of a page is run on the host that the page says last before it: `On
//! the **gateway**:`.

use anyhow::{Context as _, Result};

/// Fenced commands of a page.
#[derive(Debug)]
pub(crate) struct Step {
    /// The heading that it stands below.
    pub(crate) section: String,
    pub(crate) host: String,
    /// Whole commands: a line that ends with a backslash continues.
    pub(crate) commands: Vec<String>,
}

/// The blocks of a page that are marked `sh`.
///
/// # Errors
/// A block has no host, or no end.
pub(crate) fn steps(page: &str) -> Result<Vec<Step>> {
    let (mut steps, mut section, mut host) = (Vec::new(), String::new(), None);
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        if let Some(title) = line.strip_prefix("## ") {
            title.clone_into(&mut section);
            host = None;
        } else if line == "```sh" {
            let block: Vec<_> = lines.by_ref().take_while(|line| *line != "```").collect();
            let block = block.join("\n").replace("\\\n", "");
            steps.push(Step {
                host: host.clone().with_context(|| format!("no host is named before: {block}"))?,
                section: section.clone(),
                commands: block.lines().map(str::to_owned).collect(),
            });
        } else if let Some((_, rest)) = line.rsplit_once("On the **").or_else(|| line.rsplit_once("On a **"))
            && let Some((name, _)) = rest.split_once("**")
        {
            host = Some(name.to_owned());
        }
    }
    Ok(steps)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_belongs_to_the_host_that_was_named_last() -> Result<()> {
        let page = "## One\nOn the **gateway**:\n\n```sh\na \\\n  b\nc\n```\n\n## Two\nOn a **host of the site**:\n```sh\nd\n```\n";
        let steps = steps(page)?;
        assert_eq!(
            (&*steps[0].host, &steps[0].commands[..]),
            ("gateway", &["a   b".to_owned(), "c".into()][..])
        );
        assert_eq!((&*steps[1].host, &*steps[1].section), ("host of the site", "Two"));
        assert!(super::steps("## One\nOn the **gateway**:\n## Two\n```sh\na\n```\n").is_err());
        Ok(())
    }
}
