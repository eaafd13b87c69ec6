//! The agent's state directory: its key, its identity, the newest generation that it has seen of each share, and the gateways of its
//! environment.
//!
//! Invariants: one process uses the directory at a time; the key is on disk before it is sent, so that an enrolment
//! whose answer was lost is repeated with the same key.

use crate::generations::{Change, Generations};
use anyhow::{Context, ensure};
use jiff::Timestamp;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::{
    fs, io,
    path::{Path, PathBuf},
};
use wicketgate_model::{AgentId, EnrolGrant, EnrollmentId, EnvironmentId, SignedGatewayList};
use wicketgate_system::{
    Mutex, if_exists,
    own_directory::{DirectoryKind, OwnDirectory},
    private_file,
};
use wicketgate_transport::{
    code::EnrolmentCode,
    identity::{RENEW_AFTER, is_renewal_due},
    key::PrivateKey,
    tls::AgentTls,
    trust::CaCertificate,
};

const KIND: DirectoryKind = DirectoryKind {
    program: "agent",
    name: "state directory",
    flag: "--state-dir",
    first: KEY_FILE,
    given: &[],
    busy: "stop it first, or choose another with --state-dir",
};
const KEY_FILE: &str = "agent.key";
const IDENTITY_FILE: &str = "identity.json";
/// The extension of what a new enrolment has replaced.
const REPLACED: &str = "replaced";
const GENERATIONS_FILE: &str = "generations";
/// The newest list of the environment's gateways, as the server has signed it.
const GATEWAYS_FILE: &str = "gateways.json";
/// In which earlier versions kept the newest generations.
const EARLIER_GENERATIONS_FILE: &str = "floors.json";

/// The state directory.
pub(crate) struct StateDir {
    path: PathBuf,
    /// `None`: nothing is written.
    held: Option<OwnDirectory>,
}

/// The identity that the server has given the agent.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Enrolled {
    #[serde(flatten)]
    pub(crate) grant: EnrolGrant,
    pub(crate) issued_at: Timestamp,
    /// The code that it was given for. `None`: an agent of an earlier version has enrolled.
    #[serde(default)]
    pub(crate) enrollment: Option<EnrollmentId>,
}

/// The state of an enrolled agent.
pub(crate) struct State {
    dir: StateDir,
    enrolled: Mutex<Enrolled>,
    /// The agent was started with the code that this identity was given for.
    has_used_code: bool,
}

impl StateDir {
    pub(crate) fn lock(path: &Path) -> anyhow::Result<Self> {
        let held = OwnDirectory::open(path, &KIND)?;
        Ok(Self { path: held.path().to_owned(), held: Some(held) })
    }

    /// For a look into it, also while an agent uses it.
    pub(crate) fn read_only(path: &Path) -> Self {
        Self { path: path.to_owned(), held: None }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The agent's key, generated on the first call.
    pub(crate) fn key(&self) -> anyhow::Result<PrivateKey> {
        let path = self.path.join(KEY_FILE);
        ensure!(self.held.is_some() || path.exists(), "{} is missing", path.display());
        Ok(PrivateKey::load_or_create(&path)?)
    }

    /// The enrolled state, or the directory if no agent has enrolled in it yet.
    pub(crate) fn load(self) -> anyhow::Result<Result<State, Self>> {
        let enrolled = self.read(IDENTITY_FILE, "remove the state directory and enrol again")?;
        Ok(match enrolled {
            Some(enrolled) => Ok(State { dir: self, enrolled: Mutex::new(enrolled), has_used_code: false }),
            None => Err(self),
        })
    }

    /// Saves the identity of an enrolment.
    pub(crate) fn enrolled(self, enrolled: Enrolled) -> anyhow::Result<State> {
        self.forget_generations_of_another(&enrolled).context("cannot remove the newest generations")?;
        self.write(IDENTITY_FILE, &enrolled).context("cannot save the identity")?;
        Ok(State { dir: self, enrolled: Mutex::new(enrolled), has_used_code: false })
    }

    /// Another authority counts eras and generations by itself.
    fn forget_generations_of_another(&self, enrolled: &Enrolled) -> io::Result<()> {
        let replaced = Path::new(IDENTITY_FILE).with_added_extension(REPLACED);
        let replaced = if_exists(fs::read(self.path.join(replaced)))?;
        let replaced = replaced.and_then(|content| serde_json::from_slice::<Enrolled>(&content).ok());
        if replaced.is_some_and(|replaced| replaced.grant.ca_certificate != enrolled.grant.ca_certificate) {
            for file in [GENERATIONS_FILE, EARLIER_GENERATIONS_FILE] {
                if_exists(fs::remove_file(self.path.join(file)))?;
            }
        }
        Ok(())
    }

    /// The content of a file; `None` if it does not exist. `advice`: what to do if it is damaged.
    fn read<T: DeserializeOwned>(&self, file: &str, advice: &str) -> anyhow::Result<Option<T>> {
        let path = self.path.join(file);
        let shown = path.display();
        let Some(content) = if_exists(fs::read(&path)).with_context(|| format!("cannot read {shown}"))?
        else {
            return Ok(None);
        };
        serde_json::from_slice(&content).with_context(|| format!("cannot parse {shown}: {advice}"))
    }

    fn write(&self, file: &str, content: &impl Serialize) -> io::Result<()> {
        private_file::replace(&self.path.join(file), &serde_json::to_vec(content)?)
    }
}

impl State {
    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Whether the identity was given for this code.
    pub(crate) fn is_of(&self, code: &EnrolmentCode) -> bool {
        self.enrolled.lock().enrollment == Some(code.id())
    }

    /// Notes that the agent was started with the code that the identity was given for.
    pub(crate) fn with_used_code(self) -> Self {
        Self { has_used_code: true, ..self }
    }

    pub(crate) fn has_used_code(&self) -> bool {
        self.has_used_code
    }

    /// Makes the identity newer than a code that it makes superfluous: the package's service then removes the code's file.
    pub(crate) fn supersede_code(&self) -> io::Result<()> {
        let enrolled = self.enrolled.lock().clone();
        self.dir.write(IDENTITY_FILE, &enrolled)
    }

    /// Sets the identity and its key aside, and makes a new key. A server may know the old one again: a database can be
    /// restored. The newest generations remain, unless the next identity is of another authority: ids of shares are never used
    /// again.
    pub(crate) fn forget(self) -> anyhow::Result<StateDir> {
        // The identity first: it does not fit another key.
        for file in [IDENTITY_FILE, KEY_FILE] {
            let path = self.path().join(file);
            let aside = path.with_added_extension(REPLACED);
            fs::rename(&path, aside).with_context(|| format!("cannot rename {}", path.display()))?;
        }
        self.dir.key()?;
        Ok(self.dir)
    }

    pub(crate) fn agent(&self) -> AgentId {
        self.enrolled.lock().grant.agent
    }

    pub(crate) fn environment(&self) -> EnvironmentId {
        self.enrolled.lock().grant.environment
    }

    pub(crate) fn ca(&self) -> anyhow::Result<CaCertificate> {
        Ok(CaCertificate::from_der(self.enrolled.lock().grant.ca_certificate.clone())?)
    }

    pub(crate) fn tls(&self) -> anyhow::Result<AgentTls> {
        Ok(AgentTls::new(&self.ca()?, self.dir.key()?, self.enrolled.lock().grant.certificate.clone())?)
    }

    /// Whether a new certificate should be requested.
    pub(crate) fn is_renewal_due(&self, now: Timestamp) -> bool {
        is_renewal_due(self.enrolled.lock().issued_at, now)
    }

    /// When the certificate expires, by the clock of this host.
    pub(crate) fn expires_at(&self) -> Timestamp {
        self.enrolled.lock().issued_at.saturating_add(3 * RENEW_AFTER).unwrap_or(Timestamp::MAX)
    }

    pub(crate) fn renewed(&self, certificate: Vec<u8>, now: Timestamp) -> io::Result<()> {
        let mut renewed = self.enrolled.lock().clone();
        (renewed.grant.certificate, renewed.issued_at) = (certificate, now);
        self.dir.write(IDENTITY_FILE, &renewed)?;
        *self.enrolled.lock() = renewed;
        Ok(())
    }

    pub(crate) fn generations(&self) -> anyhow::Result<Generations> {
        let path = self.path().join(GENERATIONS_FILE);
        let shown = path.display();
        let content = if_exists(fs::read_to_string(&path)).with_context(|| format!("cannot read {shown}"))?;
        match content {
            Some(text) => {
                Generations::parse(&text).with_context(|| format!("cannot parse {shown}: remove it"))
            }
            None => {
                let newest = self.dir.read(EARLIER_GENERATIONS_FILE, "remove it")?;
                Ok(Generations::without_file(newest.unwrap_or_default()))
            }
        }
    }

    /// The newest list of gateways; `None`: none was kept.
    pub(crate) fn gateways(&self) -> anyhow::Result<Option<SignedGatewayList>> {
        self.dir.read(GATEWAYS_FILE, "remove it")
    }

    pub(crate) fn save_gateways(&self, list: &SignedGatewayList) -> io::Result<()> {
        self.dir.write(GATEWAYS_FILE, list)
    }

    pub(crate) fn save_generations(&self, change: Change) -> io::Result<()> {
        let path = self.path().join(GENERATIONS_FILE);
        match change {
            Change::Append(text) => private_file::append(&path, text.as_bytes()),
            Change::Replace(text) => {
                private_file::replace(&path, text.as_bytes())?;
                if_exists(fs::remove_file(self.path().join(EARLIER_GENERATIONS_FILE))).map(drop)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;
    use wicketgate_model::{FrontdoorId, ZId};

    fn enrolled(authority: u8) -> Enrolled {
        let grant = EnrolGrant {
            agent: AgentId::new(Uuid::nil()),
            environment: EnvironmentId::new(Uuid::nil()),
            frontdoor: FrontdoorId::new(Uuid::nil()),
            z_id: ZId::from_random([1; 10]),
            certificate: vec![7],
            ca_certificate: vec![authority],
        };
        Enrolled { grant, issued_at: Timestamp::UNIX_EPOCH, enrollment: None }
    }

    #[test]
    fn generations_are_kept_over_an_enrolment_and_not_for_another_authority() {
        let dir = tempfile::tempdir().unwrap();
        let dir = StateDir::lock(&dir.path().join("state")).unwrap();
        dir.key().unwrap();
        let state = dir.enrolled(enrolled(1)).unwrap();
        state.save_generations(Change::Replace("era 7\n".to_owned())).unwrap();
        let state = state.forget().unwrap().enrolled(enrolled(1)).unwrap();
        assert_eq!(state.generations().unwrap().era().get(), 7);
        let state = state.forget().unwrap().enrolled(enrolled(2)).unwrap();
        assert_eq!(state.generations().unwrap().era().get(), 0);
    }
}
