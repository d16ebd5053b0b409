//! A QUIC client that may change its address.

use super::server::{Identity, NAME};
use anyhow::{Context, Result, bail};
use quinn::rustls::RootCertStore;
use quinn::{ClientConfig, Connection, ConnectionId, Endpoint, EndpointConfig, TokioRuntime};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

/// Patience with a handshake or a request.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a server said of itself and of its client.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Answer {
    pub(crate) server: String,
    pub(crate) connection: usize,
    pub(crate) client: SocketAddr,
}

/// A socket; connections that are made on it share it.
pub(crate) struct Client {
    endpoint: Endpoint,
    configuration: ClientConfig,
}

impl Client {
    /// A client on an address; must be called where the runtime and the namespace are.
    pub(crate) fn new(address: IpAddr, identity: &Identity) -> Result<Self> {
        let mut roots = RootCertStore::empty();
        roots.add(identity.certificate.clone())?;
        let configuration = ClientConfig::with_root_certificates(Arc::new(roots))?;
        let socket = UdpSocket::bind((address, 0)).with_context(|| format!("binding {address}"))?;
        let endpoint = Endpoint::new(EndpointConfig::default(), None, socket, Arc::new(TokioRuntime))?;
        Ok(Self { endpoint, configuration })
    }

    /// Opens a connection; `first` are the ids to begin with, else a random one.
    pub(crate) async fn connect(&self, to: SocketAddr, first: Option<&[u8]>) -> Result<Connection> {
        let mut configuration = self.configuration.clone();
        if let Some(first) = first {
            let id = ConnectionId::new(first);
            configuration.initial_dst_cid_provider(Arc::new(move || id));
        }
        let connecting = self.endpoint.connect_with(configuration, to, NAME)?;
        let connected = tokio::time::timeout(PATIENCE, connecting).await;
        connected.with_context(|| format!("no handshake with {to}"))?.context("handshake")
    }

    /// Goes on from another address or port.
    pub(crate) fn move_to(&self, address: IpAddr) -> Result<SocketAddr> {
        self.endpoint.rebind(UdpSocket::bind((address, 0))?)?;
        Ok(self.endpoint.local_addr()?)
    }
}

/// Asks `len` bytes of a server.
pub(crate) async fn ask(connection: &Connection, len: usize) -> Result<Answer> {
    let asking = async {
        let (mut send, mut receive) = connection.open_bi().await?;
        send.write_all(&vec![7; len]).await?;
        send.finish()?;
        anyhow::Ok(String::from_utf8(receive.read_to_end(1_000).await?)?)
    };
    let text = tokio::time::timeout(PATIENCE, asking).await.context("no answer")??;
    let [server, connection, client, received] = text.split(' ').collect::<Vec<_>>()[..] else {
        bail!("the server said {text:?}");
    };
    anyhow::ensure!(received == len.to_string(), "{received} of {len} bytes arrived");
    Ok(Answer { server: server.to_owned(), connection: connection.parse()?, client: client.parse()? })
}
