//! Where standard output goes.

use std::io::{self, IsTerminal as _};

/// What can be shown there.
#[derive(Debug, Clone)]
pub(crate) struct Screen {
    pub(crate) is_terminal: bool,
    pub(crate) has_colours: bool,
    /// Columns.
    pub(crate) width: usize,
}

impl Screen {
    pub(crate) fn of_standard_output() -> Self {
        let is_terminal = io::stdout().is_terminal();
        let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let width = terminal_size::terminal_size().map_or(usize::MAX, |(width, _)| width.0.into());
        Self { is_terminal, has_colours: is_terminal && !plain, width }
    }
}
