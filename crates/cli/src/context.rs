//! Which server is asked, and as whom: contexts in a file of the user's, environment variables, or the admin token of a
//! gateway on this host.
//!
//! Invariant: at every instant, each context names the secret of its own server. A new secret is in a new file before a context
//! names it.

use std::{
    collections::BTreeMap,
    env, fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    thread::sleep,
    time::{Duration, Instant},
};

use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;
use url::{Host, Url};
use wicketgate_client::{ApiClient, Credentials, OwnedSecret};
use wicketgate_system::{directory_lock::DirectoryLock, private_file, program::StopSignals};

use crate::failed::Failed;

/// Where `wicketgate up` keeps its data and listens by default.
const LOCAL_TOKEN: &str = "/var/lib/wicketgate/admin.token";
const LOCAL_SERVER: &str = "http://127.0.0.1:8480";

/// The longest wait for other commands that change the contexts, which takes each of them milliseconds.
const LOCKED: Duration = Duration::from_secs(5);

/// The contexts of a user. Secrets are in files of their own.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Contexts {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) current: Option<String>,
    #[serde(default)]
    pub(crate) contexts: BTreeMap<String, Context>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Context {
    pub(crate) server: Url,
    /// The Frontdoor that commands are about, by its id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) frontdoor: Option<String>,
    /// Of an API account; the secret belongs to it. Otherwise, the secret is a token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) account: Option<String>,
    /// Certificates (PEM) that are trusted besides those of the system.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ca: Option<PathBuf>,
    /// The file of the secret, in the folder. Older versions named it like the context.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) secret: Option<String>,
    /// Whether the secret may be sent without TLS to another host.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) insecure_http: bool,
}

/// What the flags of every command, and the environment, say.
#[derive(Debug, Default, Clone)]
pub(crate) struct Choice {
    pub(crate) context: Option<String>,
    pub(crate) server: Option<Url>,
    pub(crate) token_file: Option<String>,
    pub(crate) frontdoor: Option<String>,
    pub(crate) ca: Option<PathBuf>,
    pub(crate) insecure_http: bool,
}

/// The server to ask.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) client: ApiClient,
    /// What was chosen: a name or an id.
    pub(crate) frontdoor: Option<String>,
    /// What interrupts the command, from its first wait on.
    pub(crate) signals: Mutex<Option<StopSignals>>,
}

impl Session {
    pub(crate) fn new(client: ApiClient, frontdoor: Option<String>) -> Self {
        Self { client, frontdoor, signals: Mutex::default() }
    }
}

/// The folder of the contexts and their secrets.
pub(crate) fn folder() -> Result<PathBuf, Failed> {
    let home = || env::var_os("HOME").map(|home| Path::new(&home).join(".config"));
    let config = env::var_os("XDG_CONFIG_HOME").filter(|dir| !dir.is_empty()).map(PathBuf::from);
    let config =
        config.or_else(home).ok_or_else(|| Failed::usage("neither XDG_CONFIG_HOME nor HOME is set"))?;
    Ok(config.join("wicketgate"))
}

impl Contexts {
    pub(crate) fn load(folder: &Path) -> Result<Self, Failed> {
        let file = folder.join("contexts.toml");
        let why = |error: &dyn std::fmt::Display| Failed::other(format!("{}: {error}", file.display()));
        match fs::read_to_string(&file) {
            Ok(text) => toml::from_str(&text).map_err(|error| why(&error.message())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(why(&error)),
        }
    }

    /// Changes the contexts, one command at a time.
    pub(crate) fn change<T>(
        folder: &Path,
        change: impl FnOnce(&mut Self) -> Result<T, Failed>,
    ) -> Result<T, Failed> {
        fs::create_dir_all(folder)?;
        let _lock = lock(folder)?;
        let mut contexts = Self::load(folder)?;
        let result = change(&mut contexts)?;
        let text = toml::to_string(&contexts).map_err(|error| Failed::other(error.to_string()))?;
        private_file::replace(&folder.join("contexts.toml"), text.as_bytes())?;
        Ok(result)
    }

    /// Whether a context has this file as its secret.
    pub(crate) fn names(&self, folder: &Path, secret: &Path) -> bool {
        self.contexts.iter().any(|(name, context)| context.secret_file(folder, name) == secret)
    }
}

impl Context {
    pub(crate) fn secret_file(&self, folder: &Path, name: &str) -> PathBuf {
        folder.join(self.secret.clone().unwrap_or_else(|| format!("{name}.secret")))
    }
}

fn lock(folder: &Path) -> Result<DirectoryLock, Failed> {
    let begin = Instant::now();
    loop {
        match DirectoryLock::take(folder) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && begin.elapsed() < LOCKED => {
                sleep(LOCKED / 100);
            }
            taken => {
                return taken.map_err(|error| {
                    Failed::other(format!("{}: the contexts cannot be locked: {error}", folder.display()))
                });
            }
        }
    }
}

/// The first line of a file with a secret, or of standard input for `-`, which belongs to the user of this process.
pub(crate) fn secret(file: &str) -> Result<OwnedSecret, Failed> {
    let text = SecretString::from(crate::schema::read_secret(file)?);
    let line = text.expose_secret().lines().next().unwrap_or_default().trim();
    if line.is_empty() {
        return Err(Failed::usage(format!("{file} is empty: it has to contain the secret")));
    }
    let owner = fs::metadata(if file == "-" { "/proc/self" } else { file })?.uid();
    Ok(OwnedSecret { secret: line.into(), owner })
}

impl Choice {
    /// The session that the flags, the environment and the contexts ask for.
    pub(crate) fn session(&self, folder: &Path) -> Result<Session, Failed> {
        match self.session_of(folder, &Contexts::load(folder)?) {
            // A sign-in at the same time replaces a secret.
            Err(Failed::NotSignedIn(_)) => self.session_of(folder, &Contexts::load(folder)?),
            session => session,
        }
    }

    fn session_of(&self, folder: &Path, contexts: &Contexts) -> Result<Session, Failed> {
        let named = self.context.as_ref().or(contexts.current.as_ref());
        if let (Some(server), None) = (&self.server, &self.context) {
            let token = self.token_file.as_deref().map(secret).transpose()?;
            return self.with(server.clone(), token.map(Credentials::Token), None);
        }
        let Some(name) = named else { return self.local() };
        let Some(context) = contexts.contexts.get(name) else {
            let known: Vec<_> = contexts.contexts.keys().map(String::as_str).collect();
            return Err(Failed::usage(format!("there is no context {name}: there are {}", known.join(", "))));
        };
        if self.token_file.is_none() && self.server.as_ref().is_some_and(|server| *server != context.server) {
            return Err(Failed::usage(format!(
                "the secret of context {name} is for {}: leave out --server (WICKETGATE_API), or give --token-file",
                context.server
            )));
        }
        let credentials = match &self.token_file {
            Some(file) => Credentials::Token(secret(file)?),
            None => {
                let file = context.secret_file(folder, name);
                let secret = secret(&file.display().to_string()).map_err(|failed| match file.exists() {
                    true => failed,
                    false => Failed::NotSignedIn(format!(
                        "the secret of context {name} is missing: {} does not exist\n\
                         Sign in with: wicketgate login --server {} --name {name} --token-file FILE",
                        file.display(),
                        context.server
                    )),
                })?;
                match &context.account {
                    Some(id) => Credentials::Account { id: id.clone(), secret },
                    None => Credentials::Token(secret),
                }
            }
        };
        let server = self.server.clone().unwrap_or_else(|| context.server.clone());
        self.with(server, Some(credentials), Some(context))
    }

    /// On the host of a server, its admin token is used.
    fn local(&self) -> Result<Session, Failed> {
        let file = match &self.token_file {
            Some(file) => file,
            None if Path::new(LOCAL_TOKEN).exists() => LOCAL_TOKEN,
            None => {
                return Err(Failed::NotSignedIn(
                    "not signed in to a server\nSign in with: wicketgate login --server URL --token-file FILE"
                        .to_owned(),
                ));
            }
        };
        let server = Url::parse(LOCAL_SERVER).map_err(|error| Failed::other(error.to_string()))?;
        self.with(server, Some(Credentials::Token(secret(file)?)), None)
    }

    fn with(
        &self,
        server: Url,
        credentials: Option<Credentials>,
        context: Option<&Context>,
    ) -> Result<Session, Failed> {
        let is_allowed = self.insecure_http || context.is_some_and(|c| c.insecure_http && c.server == server);
        if credentials.is_some() && !is_allowed {
            must_be_private(&server)?;
        }
        let ca = self.ca.clone().or_else(|| context?.ca.clone());
        let frontdoor = self.frontdoor.clone().or_else(|| context?.frontdoor.clone());
        Ok(Session::new(ApiClient::new(server, credentials, ca)?, frontdoor))
    }
}

/// Refuses an address at which the network could read a secret.
pub(crate) fn must_be_private(server: &Url) -> Result<(), Failed> {
    let is_private = match server.host() {
        _ if server.scheme() != "http" => true,
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.is_loopback(),
        None => false,
    };
    match is_private {
        true => Ok(()),
        false => Err(Failed::usage(format!(
            "{server} is without TLS, so that the network could read the token: use https://, or --insecure-http"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn a_secret_goes_over_tls_or_stays_on_this_host() {
        let is = |server: &str| must_be_private(&Url::parse(server).unwrap()).is_ok();
        for private in ["https://gw.example", "http://127.0.0.1:8480", "http://[::1]:1", "http://localhost:1"]
        {
            assert!(is(private), "{private}");
        }
        for open in ["http://gw.example", "http://10.0.0.1:8480", "http://localhost.example", "http://[::2]"]
        {
            assert!(!is(open), "{open}");
        }
    }

    #[test]
    fn a_context_of_an_older_version_has_the_secret_of_its_name() {
        let text = "[contexts.default]\nserver = \"https://gw.example\"\n";
        let contexts: Contexts = toml::from_str(text).unwrap();
        let file = contexts.contexts["default"].secret_file(Path::new("/folder"), "default");
        assert_eq!(file, Path::new("/folder/default.secret"));
    }

    #[test]
    fn a_secret_that_is_replaced_at_the_same_time_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let text = |secret: &str| {
            format!(
                "current = \"a\"\n[contexts.a]\nserver = \"https://gw.example\"\nsecret = \"{secret}.secret\"\n"
            )
        };
        fs::write(at("new.secret"), "the-secret").unwrap();
        fs::write(at("next"), text("new")).unwrap();
        assert!(Command::new("mkfifo").arg(at("contexts.toml")).status().unwrap().success());
        std::thread::scope(|scope| {
            // The contexts are replaced while they are read.
            scope.spawn(|| {
                let mut read = fs::OpenOptions::new().write(true).open(at("contexts.toml")).unwrap();
                fs::rename(at("next"), at("contexts.toml")).unwrap();
                io::Write::write_all(&mut read, text("old").as_bytes()).unwrap();
            });
            Choice::default().session(folder.path()).unwrap();
        });
    }
}
