//! The commands of a page, to be run line by line. A block of a page is run on the host that the page says last before it: `On
//! the **gateway**:`. A block `text` behind it is what the commands print.

use anyhow::{Context as _, Result, ensure};

/// Fenced commands of a page.
#[derive(Debug)]
pub(crate) struct Step {
    /// The heading that it stands below.
    pub(crate) section: String,
    pub(crate) host: String,
    /// Whole commands: a line that ends with a backslash continues.
    pub(crate) commands: Vec<String>,
    /// Lines that the commands print, in this order, among others.
    pub(crate) prints: Vec<String>,
}

/// The blocks of a page that are marked `sh`, each with the block `text` behind it.
///
/// # Errors
/// A block has no host, no end, or no commands before it.
pub(crate) fn steps(page: &str) -> Result<Vec<Step>> {
    let (mut steps, mut section, mut host) = (Vec::<Step>::new(), String::new(), None);
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        let mut block = || lines.by_ref().take_while(|line| *line != "```").collect::<Vec<_>>();
        if let Some(title) = line.strip_prefix("## ") {
            title.clone_into(&mut section);
            host = None;
        } else if line == "```sh" {
            let block = block().join("\n").replace("\\\n", "");
            steps.push(Step {
                host: host.clone().with_context(|| format!("no host is named before: {block}"))?,
                section: section.clone(),
                commands: block.lines().map(str::to_owned).collect(),
                prints: Vec::new(),
            });
        } else if line == "```text" {
            let step = steps.last_mut().filter(|step| step.section == section && step.prints.is_empty());
            let step = step.context("an output without commands before it")?;
            step.prints = block().into_iter().map(str::to_owned).collect();
        } else if let Some((_, rest)) = line.rsplit_once("On the **").or_else(|| line.rsplit_once("On a **"))
            && let Some((name, _)) = rest.split_once("**")
        {
            host = Some(name.to_owned());
        }
    }
    Ok(steps)
}

impl Step {
    /// Compares what the commands have printed with what the page shows. There, `…` is any text, and space is any space.
    ///
    /// # Errors
    /// A line of the page was not printed, or not in its place.
    pub(crate) fn expect(&self, printed: &str) -> Result<()> {
        let mut rest = printed.lines();
        for wanted in &self.prints {
            let is_there = rest.any(|line| is_like(line, wanted));
            ensure!(
                is_there,
                "{}: the page shows {wanted:?} in this place; printed was:\n{printed}",
                self.host
            );
        }
        Ok(())
    }
}

/// Whether the line has the parts of `wanted` between the `…`, in their order, and nothing outside of them.
fn is_like(line: &str, wanted: &str) -> bool {
    let plain = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let (line, wanted) = (plain(line), plain(wanted));
    let mut parts = wanted.split('…');
    let Some(mut rest) = parts.next().and_then(|first| line.strip_prefix(first)) else { return false };
    let Some(last) = parts.next_back() else { return rest.is_empty() };
    for part in parts {
        let Some((_, behind)) = rest.split_once(part) else { return false };
        rest = behind;
    }
    rest.ends_with(last)
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

    #[test]
    fn an_output_is_compared_line_by_line_but_for_what_is_left_open() -> Result<()> {
        let page = "## One\nOn the **gateway**:\n```sh\na\n```\nIt prints:\n```text\nNAME   STATUS\nweb … UP …\n```\n";
        let [step] = &steps(page)?[..] else { panic!("one step") };
        step.expect("first\nNAME STATUS\nweb 12 UP since noon\nlast")?;
        for wrong in
            ["NAME STATUS", "web 1 UP x\nNAME STATUS", "NAME STATUS\nweb 1 DOWN", "NAMES STATUS\nweb 1 UP x"]
        {
            assert!(step.expect(wrong).is_err(), "{wrong}");
        }
        assert!(is_like("exact", "exact") && !is_like("exactly", "exact") && is_like("exactly", "exact…"));
        assert!(super::steps("## One\n```text\na\n```\n").is_err());
        Ok(())
    }
}
