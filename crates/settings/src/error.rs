//! Why there are no settings.

use wicketgate_system::program::WrongUsage;

/// See the module.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    #[error(transparent)]
    CommandLine(#[from] Box<clap::Error>),
    /// Names the file and, if one is at fault, the line.
    #[error("{at}: {what}")]
    File { at: String, what: String },
}

impl From<SettingsError> for WrongUsage {
    fn from(error: SettingsError) -> Self {
        Self(error.to_string())
    }
}
