//! A QUIC server that names itself in its connection ids.

use anyhow::{Context, Result};
use lb_common::affinity::quic::{Encoder, Layout, ServerId};
use quinn::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use quinn::{ConnectionId, ConnectionIdGenerator, Endpoint, EndpointConfig, ServerConfig, TokioRuntime};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;
use stickleback_tests::topology::Namespace;
use tokio::sync::oneshot;

/// How connection ids are made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ids {
    pub(crate) rotation: u8,
    pub(crate) server: u8,
    pub(crate) nonce: u8,
    pub(crate) key: Option<[u8; 16]>,
}

impl Ids {
    /// The id of backend `n`, counted from 0.
    pub(crate) fn server_id(&self, n: usize) -> Vec<u8> {
        (0..self.server).map(|i| 0x51 + i * 3 + n as u8 * 7).collect()
    }

    /// An encoder for backend `n` that no other one is like.
    pub(crate) fn encoder(&self, n: usize, other: u8) -> Result<Encoder> {
        let layout = Layout::new(self.server, self.nonce)?;
        let server = ServerId::new(&self.server_id(n)).context("a server id")?;
        let seed = std::array::from_fn(|i| i as u8 ^ (n as u8 * 31) ^ other);
        Encoder::new(self.rotation, layout, server, self.key.as_ref(), &seed).context("an encoder")
    }
}

/// Name and key of all servers, which pass for one.
pub(crate) struct Identity {
    pub(crate) certificate: CertificateDer<'static>,
    key: Vec<u8>,
}

/// The name that the certificate is for.
pub(crate) const NAME: &str = "quic.test";

impl Identity {
    pub(crate) fn new() -> Result<Self> {
        let made = rcgen::generate_simple_self_signed([NAME.to_owned()])?;
        Ok(Self { certificate: made.cert.der().clone(), key: made.signing_key.serialize_der() })
    }

    fn server(&self) -> Result<ServerConfig> {
        let key = PrivateKeyDer::try_from(self.key.clone()).map_err(anyhow::Error::msg)?;
        Ok(ServerConfig::with_single_cert(vec![self.certificate.clone()], key)?)
    }
}

struct Generator {
    encoder: Arc<Mutex<Encoder>>,
    len: usize,
}

impl ConnectionIdGenerator for Generator {
    fn generate_cid(&mut self) -> ConnectionId {
        let mut encoder = self.encoder.lock().expect("nobody panics with it");
        ConnectionId::new(encoder.encode().expect("the nonces last for a test").as_bytes())
    }
    fn cid_len(&self) -> usize {
        self.len
    }
    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

/// A server on every address of a namespace; ended when dropped.
pub(crate) struct Server {
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Starts it; it answers each request with its name, the number of the connection and whom it sees.
    pub(crate) fn start(
        namespace: &Namespace,
        name: &str,
        port: u16,
        identity: &Identity,
        ids: Ids,
        n: usize,
    ) -> Result<Self> {
        let configuration = identity.server()?;
        let encoder = Arc::new(Mutex::new(ids.encoder(n, 0)?));
        let sockets = namespace
            .inside(|| Ok([socket(Ipv4Addr::UNSPECIFIED, port)?, socket(Ipv6Addr::UNSPECIFIED, port)?]))?;
        let (end, ended) = oneshot::channel();
        let name = name.to_owned();
        let len = 1 + usize::from(ids.server) + usize::from(ids.nonce);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let thread = std::thread::spawn(move || {
            runtime.block_on(async {
                for socket in sockets {
                    let mut endpoint = EndpointConfig::default();
                    let encoder = encoder.clone();
                    endpoint.cid_generator(move || Box::new(Generator { encoder: encoder.clone(), len }));
                    let server = Some(configuration.clone());
                    let endpoint = Endpoint::new(endpoint, server, socket, Arc::new(TokioRuntime))
                        .expect("an endpoint on a bound socket");
                    tokio::spawn(serve(endpoint, name.clone()));
                }
                let _ = ended.await;
            });
        });
        Ok(Self { end: Some(end), thread: Some(thread) })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn socket(address: impl Into<IpAddr>, port: u16) -> Result<UdpSocket> {
    let address = SocketAddr::new(address.into(), port);
    let socket = socket2::Socket::new(socket2::Domain::for_address(address), socket2::Type::DGRAM, None)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind(&address.into()).with_context(|| format!("binding {address}"))?;
    Ok(socket.into())
}

async fn serve(endpoint: Endpoint, name: String) {
    while let Some(incoming) = endpoint.accept().await {
        let name = name.clone();
        tokio::spawn(async move {
            let Ok(connection) = incoming.await else { return };
            while let Ok((mut send, mut receive)) = connection.accept_bi().await {
                let Ok(asked) = receive.read_to_end(1 << 24).await else { return };
                let (id, remote) = (connection.stable_id(), connection.remote_address());
                let answer = format!("{name} {id} {remote} {}", asked.len());
                let _ = send.write_all(answer.as_bytes()).await;
                let _ = send.finish();
            }
        });
    }
}
