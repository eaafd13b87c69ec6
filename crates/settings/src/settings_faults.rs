//! What a program's own checks find wrong in its settings: all of it, and not only the first.

use wicketgate_system::program::WrongUsage;

/// See the module.
#[derive(Debug, Default)]
pub struct SettingsFaults(Vec<SettingsFault>);

/// One of them.
#[derive(Debug)]
pub(crate) struct SettingsFault {
    /// The names of the settings that it may be about.
    pub(crate) settings: &'static [&'static str],
    pub(crate) error: anyhow::Error,
}

impl SettingsFaults {
    /// The value that a check returns. What is wrong instead is kept, with the settings that it may be about.
    pub fn keep<T>(&mut self, settings: &'static [&'static str], checked: anyhow::Result<T>) -> Option<T> {
        checked.map_err(|error| self.0.push(SettingsFault { settings, error })).ok()
    }

    /// One fault, which may be about any setting.
    pub fn one(error: anyhow::Error) -> Self {
        Self(vec![SettingsFault { settings: &[], error }])
    }

    /// `Ok`: nothing is wrong.
    ///
    /// # Errors
    /// Something was kept.
    pub fn none(self) -> Result<(), Self> {
        if self.0.is_empty() { Ok(()) } else { Err(self) }
    }

    pub(crate) fn into_all(self) -> Vec<SettingsFault> {
        self.0
    }
}

impl SettingsFault {
    pub(crate) fn is_wrong_usage(&self) -> bool {
        self.error.is::<WrongUsage>()
    }

    /// Of the settings that are there, the one that the error names as a flag, or else the first.
    pub(crate) fn setting(&self, is_there: impl Fn(&str) -> bool) -> Option<&'static str> {
        let there = || self.settings.iter().copied().filter(|name| is_there(name));
        let error = format!("{:#}", self.error);
        let is_named = |name: &&str| {
            let flag = format!("--{name}");
            let mut behind = error.match_indices(&flag).map(|(at, _)| &error[at + flag.len()..]);
            behind.any(|rest| !rest.starts_with(|c: char| c == '-' || c.is_ascii_alphanumeric()))
        };
        there().find(is_named).or_else(|| there().next())
    }
}

/// In one line, as a start that is refused says it.
impl From<SettingsFaults> for anyhow::Error {
    fn from(SettingsFaults(mut all): SettingsFaults) -> Self {
        if all.len() == 1
            && let Some(one) = all.pop()
        {
            return one.error;
        }
        let is_usage = all.iter().any(SettingsFault::is_wrong_usage);
        let words = all.iter().map(|fault| format!("{:#}", fault.error)).collect::<Vec<_>>().join("; ");
        if is_usage { WrongUsage(words).into() } else { anyhow::anyhow!(words) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::anyhow;

    #[test]
    fn a_start_that_is_refused_names_all_faults_in_one_line_and_keeps_the_exit_status() {
        let mut faults = SettingsFaults::default();
        assert_eq!(faults.keep(&["a"], Ok(1)), Some(1));
        assert_eq!(faults.keep::<()>(&["b"], Err(anyhow!("no file").context("cannot read b"))), None);
        assert_eq!(faults.keep::<()>(&["c"], Err(WrongUsage("c is wrong".to_owned()).into())), None);
        let error = anyhow::Error::from(faults.none().unwrap_err());
        assert_eq!(error.to_string(), "cannot read b: no file; c is wrong");
        assert!(error.is::<WrongUsage>());
        SettingsFaults::default().none().unwrap();
        assert!(
            anyhow::Error::from(SettingsFaults::one(WrongUsage(String::new()).into())).is::<WrongUsage>()
        );
    }

    #[test]
    fn a_fault_is_of_the_setting_that_it_names_as_a_flag() {
        let fault = |words: &'static str| SettingsFault {
            settings: &["tls", "tls-key", "listen"],
            error: anyhow!(words),
        };
        assert_eq!(fault("set --tls-key").setting(|_| true), Some("tls-key"));
        assert_eq!(fault("set --tls-key").setting(|name| name != "tls-key"), Some("tls"));
        assert_eq!(fault("it is wrong").setting(|name| name == "listen"), Some("listen"));
        assert_eq!(fault("it is wrong").setting(|_| false), None);
    }
}
