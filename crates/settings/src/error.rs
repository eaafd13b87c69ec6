//! Why there are no settings.

use std::fmt;

use wicketgate_system::program::WrongUsage;

/// See the module.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    #[error(transparent)]
    CommandLine(#[from] Box<clap::Error>),
    /// All faults of the file, one a line, in the order of its lines.
    #[error("{}", in_lines(.0))]
    File(Vec<FileFault>),
}

/// What is wrong at one place of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileFault {
    /// The file, and the line if one is at fault.
    pub(crate) at: String,
    /// 0: no line is at fault.
    pub(crate) line: usize,
    pub(crate) what: String,
    /// The setting that is wrong, or the one that is probably meant.
    pub(crate) setting: Option<String>,
}

impl fmt::Display for FileFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.at, self.what)
    }
}

fn in_lines(faults: &[FileFault]) -> String {
    faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

impl From<SettingsError> for WrongUsage {
    fn from(error: SettingsError) -> Self {
        Self(match error {
            SettingsError::CommandLine(error) => error.to_string(),
            // A service manager shows one line.
            SettingsError::File(_) => error.to_string().replace('\n', "; "),
        })
    }
}
