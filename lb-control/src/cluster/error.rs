//! What can go wrong between nodes.

use super::identity::{NodeId, Role};
use std::io;
use std::path::PathBuf;

/// Why something about the cluster was not done.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// A file could not be read or written.
    #[error("{}: {source}; expected a file that lbd may read and write", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file holds something else.
    #[error("{}: {reason}; restore it from a copy, or remove the directory and join again", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The node is in a cluster already.
    #[error("this node is already in a cluster, as {id}; to leave it, have it removed and delete {}", path.display())]
    Already {
        /// Its id there.
        id: NodeId,
        /// Where that stands.
        path: PathBuf,
    },
    /// The node has no cluster.
    #[error("this node is in no cluster; expected `lbctl cluster init` or `lbctl cluster join` first")]
    NoCluster,
    /// A secret was changed a short while ago.
    #[error(
        "sessions from before the last change of the session-key secret may live for {seconds} s more and would be lost; \
         expected to wait for so long, or `--force`"
    )]
    TooSoon {
        /// Seconds to wait.
        seconds: u64,
    },
    /// The authority's key is on another node.
    #[error("this node cannot sign; do it on the node where `lbctl cluster init` ran")]
    NoAuthority,
    /// A certificate is not what it should be.
    #[error("the certificate is refused: {reason}")]
    Certificate {
        /// Why.
        reason: String,
    },
    /// A certificate could not be made.
    #[error("a certificate cannot be made: {0}")]
    Making(#[from] rcgen::Error),
    /// TLS refused the certificates or keys.
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
    /// Not a node id.
    #[error("{text:?} is no node id: expected 16 hexadecimal digits, as `lbctl cluster status` shows them")]
    NodeId {
        /// What was given.
        text: String,
    },
    /// No member has this id.
    #[error("no member has the id {id}; `lbctl cluster status` lists them")]
    NoMember {
        /// The id.
        id: NodeId,
    },
    /// No member has this name.
    #[error("no member is called {name}; `lbctl cluster status` lists names and ids")]
    NoMemberNamed {
        /// The name.
        name: String,
    },
    /// More than one member has this name.
    #[error("more than one member is called {name}; give the id, as `lbctl cluster status` shows it")]
    SeveralMembers {
        /// The name.
        name: String,
    },
    /// The machine's addresses could not be listed.
    #[error(
        "the addresses of this machine cannot be listed: {reason}; name them as `advertise` in [cluster]"
    )]
    Addresses {
        /// Why.
        reason: String,
    },
    /// The node that holds the authority's key cannot be removed.
    #[error("{id} holds the key of the cluster's authority; it cannot remove itself")]
    Itself {
        /// The id.
        id: NodeId,
    },
    /// Text that is no token.
    #[error("this is no join token: expected the text that `lbctl cluster token` prints, in full")]
    TokenText,
    /// A token that does not let anybody in.
    #[error("the token is unknown, used or expired; make another one with `lbctl cluster token`")]
    Token,
    /// A token for another kind of machine.
    #[error(
        "the token makes a member of role {}, and this machine is one of role {}, by `kind` of its [dataplane]; make another one \
         with `lbctl cluster token --role {}`", role.name(), wanted.name(), wanted.name()
    )]
    OtherRole {
        /// What the token is for.
        role: Role,
        /// What the machine is.
        wanted: Role,
    },
    /// A machine that was another kind of member.
    #[error(
        "{}: this machine joined with role {}, and by `kind` of its [dataplane] it is of role {} now; have it removed, delete the \
         directory and join again", path.display(), role.name(), now.name()
    )]
    Changed {
        /// Where its identity stands.
        path: PathBuf,
        /// What it was.
        role: Role,
        /// What it is.
        now: Role,
    },
    /// A switch that was told to make a cluster.
    #[error(
        "a cluster is made by one of its nodes: run `lbctl cluster init` there, and join the switch with a token of role switch"
    )]
    SwitchAlone,
    /// A name that nobody could read.
    #[error("a name of {length} characters, at most {most} are allowed; set `name` in [cluster]")]
    LongName {
        /// Its length.
        length: usize,
        /// The most.
        most: usize,
    },
    /// A member list that is not one.
    #[error("the member list is refused: {reason}")]
    Roster {
        /// Why.
        reason: String,
    },
    /// Something that the authority did not sign.
    #[error("the {name} is refused: {reason}")]
    Document {
        /// What it should be.
        name: &'static str,
        /// Why.
        reason: String,
    },
    /// A peer sent what it must not.
    #[error("the peer broke the protocol: {reason}")]
    Protocol {
        /// How.
        reason: String,
    },
    /// The other side refused.
    #[error("refused by the other node: {reason}")]
    Refused {
        /// Its words.
        reason: String,
    },
    /// The other side could not be reached, or went away.
    #[error("{address}: {reason}; expected a node of the cluster that listens there on UDP")]
    Unreachable {
        /// Where it should be.
        address: String,
        /// What happened.
        reason: String,
    },
    /// The socket could not be opened.
    #[error(
        "cluster address {address}: cannot be listened on: {source}; expected a free UDP address of this host"
    )]
    Listen {
        /// The address.
        address: std::net::SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The system gave no random bytes.
    #[error("the system gives no random bytes")]
    Random,
}
