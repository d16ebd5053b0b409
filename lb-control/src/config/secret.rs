//! Where secrets come from.

use super::value::{Secret, Text};
use core::fmt;
use lb_core::pool::secret::{NodeSecrets, SegmentSecret, SessionSecret, SynCookieSecret};
use lb_core::pool::{AffinitySpec, Desired};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Id of a segment key that `lbd` made.
const GENERATED_ID: u8 = 0;

/// Where one secret comes from.
#[derive(Clone, PartialEq, Eq)]
pub enum SecretSource {
    /// It stands in the configuration.
    Given([u8; 16]),
    /// It stands in this file, in hexadecimal.
    File(PathBuf),
    /// `lbd` makes one and keeps it in the state directory.
    Generated,
}

/// Where all secrets of a configuration come from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Secrets {
    /// Key of the session-key hash.
    pub session: SecretSource,
    /// What the keys of SYN cookies are made of.
    pub syn_cookie: SecretSource,
    /// Keys of sealed segments with their ids, the one in use first; empty = one is made.
    pub segment: Vec<(u8, SecretSource)>,
    /// Keys of QUIC connection ids that stand in files.
    pub quic: Vec<QuicKeyFile>,
}

/// Secrets that a configuration says nothing of, from elsewhere than the state directory: those of a cluster.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct SharedSecrets {
    /// Key of the session-key hash.
    pub session: [u8; 16],
    /// The one that follows it; sessions are found under both.
    pub session_next: Option<SessionSecret>,
    /// What the keys of SYN cookies are made of.
    pub syn_cookie: [u8; 16],
    /// The same from later epochs on.
    pub syn_cookie_later: Vec<SynCookieSecret>,
    /// Keys of sealed segments, the one in use first.
    pub segment: Vec<SegmentSecret>,
}

/// A file with the key of a configuration of QUIC connection ids.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct QuicKeyFile {
    /// Place of the service.
    pub service: usize,
    /// Place of the configuration in the service.
    pub configuration: usize,
    /// The file.
    pub path: PathBuf,
}

/// What a secret is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Purpose {
    /// The session-key hash.
    Session,
    /// SYN cookies.
    SynCookie,
    /// Sealed segments of cookies.
    Segment,
    /// QUIC connection ids.
    Quic,
}

impl Purpose {
    /// The file in the state directory that keeps one that `lbd` made.
    const fn file(self) -> &'static str {
        match self {
            Self::Session => "session-secret",
            Self::SynCookie => "syn-cookie-secret",
            Self::Segment => "segment-key",
            Self::Quic => "quic-key",
        }
    }

    /// Its name.
    const fn name(self) -> &'static str {
        match self {
            Self::Session => "session secret",
            Self::SynCookie => "SYN cookie secret",
            Self::Segment => "segment key",
            Self::Quic => "QUIC key",
        }
    }

    /// The keys that set it.
    const fn keys(self) -> &'static str {
        match self {
            Self::Session => "`session-secret` or `session-secret-file` in [node]",
            Self::SynCookie => "`syn-cookie-secret` or `syn-cookie-secret-file` in [node]",
            Self::Segment => "[[node.segment-key]]",
            Self::Quic => "`key` or `key-file` in [[service.quic]]",
        }
    }
}

impl fmt::Display for Purpose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why there is no secret.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// A file could not be read.
    #[error("cannot read the {purpose} from {path}: {source}; make the file readable for lbd")]
    Read {
        /// What it is for.
        purpose: Purpose,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file holds something else.
    #[error("{path} holds no {purpose}: expected {}", Secret::EXPECTED)]
    Malformed {
        /// What it is for.
        purpose: Purpose,
        /// The file.
        path: PathBuf,
    },
    /// A new secret could not be kept.
    #[error(
        "cannot keep a new {purpose} in {path}: {source}; make the directory writable for lbd, or set {}",
        purpose.keys()
    )]
    Keep {
        /// What it is for.
        purpose: Purpose,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl SecretError {
    /// What to look at.
    pub fn hint(&self) -> String {
        match self {
            Self::Keep { .. } => "give --state-dir a directory that lbd may write to".to_owned(),
            Self::Read { purpose, .. } | Self::Malformed { purpose, .. } => format!("see {}", purpose.keys()),
        }
    }
}

impl SharedSecrets {
    /// Those that a node has.
    pub fn of(desired: &Desired) -> Self {
        let NodeSecrets { syn_cookie, syn_cookie_later, segment } = desired.node.secrets.clone();
        let session = desired.node.session_secret;
        // Sessions may be bound under it still, and nothing follows the one in use.
        let session_next = desired.node.other_secret.map(|_| SessionSecret { from: 0, secret: session });
        let session = desired.node.other_secret.unwrap_or(session);
        Self { session, session_next, syn_cookie, syn_cookie_later, segment }
    }

    /// The secret of the session-key hash in use at a time since 1970, and the other one.
    pub fn session_at(&self, now: Duration) -> ([u8; 16], Option<[u8; 16]>) {
        match self.session_next {
            None => (self.session, None),
            Some(next) if next.from <= now.as_secs() => (next.secret, Some(self.session)),
            Some(next) => (self.session, Some(next.secret)),
        }
    }

    /// Whether these are what a node has at a time since 1970.
    pub fn are_of(&self, desired: &Desired, now: Duration) -> bool {
        let SharedSecrets { session: _, session_next: _, syn_cookie, syn_cookie_later, segment } = self;
        let node = &desired.node;
        self.session_at(now) == (node.session_secret, node.other_secret)
            && *syn_cookie == node.secrets.syn_cookie
            && *syn_cookie_later == node.secrets.syn_cookie_later
            && *segment == node.secrets.segment
    }

    /// How long it is until another secret of the session-key hash is in use; `None` = the one in use stays.
    pub fn change(&self, now: Duration) -> Option<Duration> {
        let from = Duration::from_secs(self.session_next?.from);
        from.checked_sub(now).filter(|left| !left.is_zero())
    }
}

impl Secrets {
    /// Puts every secret into a desired state; makes and keeps below `state_dir` those that nothing is said of.
    pub fn resolve(&self, desired: &mut Desired, state_dir: &Path) -> Result<(), SecretError> {
        self.resolve_with(desired, |source, purpose| source.resolve(purpose, state_dir))
    }

    /// The same, but for those that nothing is said of: those are the shared ones, at a time since 1970.
    pub fn resolve_shared(
        &self,
        desired: &mut Desired,
        shared: &SharedSecrets,
        now: Duration,
    ) -> Result<(), SecretError> {
        let (in_use, other) = shared.session_at(now);
        self.resolve_with(desired, |source, purpose| match (source, purpose) {
            (SecretSource::Generated, Purpose::Session) => Ok(in_use),
            (SecretSource::Generated, Purpose::SynCookie) => Ok(shared.syn_cookie),
            (SecretSource::Generated, Purpose::Segment | Purpose::Quic) => Ok([0; 16]),
            // Nothing is looked for elsewhere than where the file says.
            (SecretSource::Given(_) | SecretSource::File(_), purpose) => {
                source.resolve(purpose, Path::new("/"))
            }
        })?;
        if self.session == SecretSource::Generated {
            desired.node.other_secret = other;
        }
        if self.syn_cookie == SecretSource::Generated {
            desired.node.secrets.syn_cookie_later.clone_from(&shared.syn_cookie_later);
        }
        if self.segment.is_empty() {
            desired.node.secrets.segment.clone_from(&shared.segment);
        }
        Ok(())
    }

    /// The same, but for those that are made: those are as in `running`.
    pub(super) fn resolve_beside(
        &self,
        desired: &mut Desired,
        running: &Desired,
        state_dir: &Path,
    ) -> Result<(), SecretError> {
        let made = |key: &SegmentSecret| key.id == GENERATED_ID;
        self.resolve_with(desired, |source, purpose| match (source, purpose) {
            (SecretSource::Generated, Purpose::Session) => Ok(running.node.session_secret),
            (SecretSource::Generated, Purpose::SynCookie) => Ok(running.node.secrets.syn_cookie),
            (SecretSource::Generated, Purpose::Segment | Purpose::Quic) => Ok([0; 16]),
            (SecretSource::Given(_) | SecretSource::File(_), purpose) => source.resolve(purpose, state_dir),
        })?;
        if self.session == SecretSource::Generated {
            desired.node.other_secret = running.node.other_secret;
        }
        if self.segment.is_empty() && running.node.secrets.segment.iter().all(made) {
            desired.node.secrets.segment.clone_from(&running.node.secrets.segment);
        }
        Ok(())
    }

    fn resolve_with(
        &self,
        desired: &mut Desired,
        resolve: impl Fn(&SecretSource, Purpose) -> Result<[u8; 16], SecretError>,
    ) -> Result<(), SecretError> {
        desired.node.session_secret = resolve(&self.session, Purpose::Session)?;
        desired.node.other_secret = None;
        let syn_cookie = resolve(&self.syn_cookie, Purpose::SynCookie)?;
        let generated = [(GENERATED_ID, SecretSource::Generated)];
        let segment = if self.segment.is_empty() { &generated[..] } else { &self.segment };
        let segment = segment
            .iter()
            .map(|(id, source)| Ok(SegmentSecret { id: *id, key: resolve(source, Purpose::Segment)? }))
            .collect::<Result<_, _>>()?;
        desired.node.secrets = NodeSecrets { syn_cookie, syn_cookie_later: Vec::new(), segment };
        for QuicKeyFile { service, configuration, path } in &self.quic {
            let key = resolve(&SecretSource::File(path.clone()), Purpose::Quic)?;
            let service = desired.services.get_mut(*service);
            if let Some(AffinitySpec::QuicCid(quic)) = service.map(|service| &mut service.affinity)
                && let Some(configuration) = quic.configurations.get_mut(*configuration)
            {
                configuration.key = Some(key);
            }
        }
        Ok(())
    }
}

impl SecretSource {
    /// The secret; makes one and keeps it below `state_dir` when nothing else is configured.
    pub fn resolve(&self, purpose: Purpose, state_dir: &Path) -> Result<[u8; 16], SecretError> {
        match self {
            Self::Given(secret) => Ok(*secret),
            Self::File(path) => read(purpose, path),
            Self::Generated => {
                let path = state_dir.join(purpose.file());
                match read(purpose, &path) {
                    Err(SecretError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                        let kept = keep(&path);
                        kept.map_err(|source| SecretError::Keep { purpose, path: path.clone(), source })?;
                        read(purpose, &path)
                    }
                    outcome => outcome,
                }
            }
        }
    }
}

impl fmt::Debug for SecretSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Given(_) => f.write_str("Given"),
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
            Self::Generated => f.write_str("Generated"),
        }
    }
}

fn read(purpose: Purpose, path: &Path) -> Result<[u8; 16], SecretError> {
    let text = fs::read_to_string(path).map_err(|source| SecretError::Read {
        purpose,
        path: path.to_owned(),
        source,
    })?;
    match Secret::from_text(text.trim()) {
        Some(secret) => Ok(secret.0),
        None => Err(SecretError::Malformed { purpose, path: path.to_owned() }),
    }
}

/// Makes a secret and puts it in place as a whole, so that two that do this at once end with the same one.
fn keep(path: &Path) -> io::Result<()> {
    let dir = path.parent().unwrap_or(Path::new("/"));
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    let mut secret = [0; 16];
    File::open("/dev/urandom")?.read_exact(&mut secret)?;
    let mut draft = path.as_os_str().to_owned();
    draft.push(format!(".{}", std::process::id()));
    let draft = PathBuf::from(draft);
    let written = (|| {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
        writeln!(file, "{:032x}", u128::from_be_bytes(secret))?;
        file.sync_all()?;
        match fs::hard_link(&draft, path) {
            Err(fault) if fault.kind() != io::ErrorKind::AlreadyExists => Err(fault),
            Ok(()) | Err(_) => File::open(dir)?.sync_all(),
        }
    })();
    let removed = fs::remove_file(&draft);
    written.and(removed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_secret_is_made_once_and_kept() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("deep/state");
        let session = |source: SecretSource| source.resolve(Purpose::Session, &state).unwrap();
        let first = session(SecretSource::Generated);
        assert_ne!(first, [0; 16]);
        assert_eq!(session(SecretSource::Generated), first);
        assert_eq!(session(SecretSource::File(state.join("session-secret"))), first);
        assert_eq!(fs::metadata(state.join("session-secret")).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(&state).unwrap().count(), 1, "no draft is left");
        let other = SecretSource::Generated.resolve(Purpose::SynCookie, &state).unwrap();
        assert_ne!(other, first);
        assert!(state.join("syn-cookie-secret").exists());
    }

    #[test]
    fn a_secret_that_cannot_be_had_names_its_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let of = |source: SecretSource, purpose, dir: &Path| source.resolve(purpose, dir).unwrap_err();
        let missing = of(SecretSource::File(path.clone()), Purpose::Segment, dir.path());
        assert!(missing.to_string().contains(&path.display().to_string()), "{missing}");
        assert!(missing.to_string().contains("segment key"), "{missing}");
        fs::write(&path, "not a secret").unwrap();
        let malformed = of(SecretSource::File(path.clone()), Purpose::Quic, dir.path());
        assert!(malformed.to_string().contains("32 hexadecimal digits"), "{malformed}");
        let unwritable = of(SecretSource::Generated, Purpose::SynCookie, &path);
        assert!(matches!(unwritable, SecretError::Read { .. } | SecretError::Keep { .. }), "{unwritable}");
        assert_eq!(format!("{:?}", SecretSource::Given([7; 16])), "Given", "never printed");
    }
}
