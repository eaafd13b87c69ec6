//! The version that `--version` and backups show.

/// Of a package, `make packages` adds the commit and its date.
pub(crate) const VERSION: &str = match option_env!("WICKETGATE_VERSION") {
    Some(version) => version,
    None => env!("CARGO_PKG_VERSION"),
};
