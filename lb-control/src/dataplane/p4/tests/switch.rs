//! A switch that forwards nothing: tables, mastership, digests and idle entries behind a real gRPC server.

use crate::dataplane::p4::program::Program;
use crate::dataplane::p4::proto::{
    Any, Arbitration, Cookie, DigestList, Entity, EntryError, ForwardingPipelineConfig,
    GetForwardingPipelineConfigRequest, GetForwardingPipelineConfigResponse, IdleTimeoutNotification, P4Data,
    ReadRequest, ReadResponse, Request, Response, SetForwardingPipelineConfigRequest,
    SetForwardingPipelineConfigResponse, Status as Details, StructLike, TableEntry, Uint128, UpdateKind,
    WriteRequest, WriteResponse, data_kind, entity_kind, request_kind, response_kind,
};
use crate::dataplane::p4::row::{Content, Key, Table};
use futures_util::stream::{self, StreamExt as _};
use prost::Message as _;
use std::collections::HashMap;
use std::convert::Infallible;
use std::future::{Future, ready};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;
use tonic::body::Body;
use tonic::codegen::{Service, http};
use tonic::server::{Grpc, NamedService, ServerStreamingService, StreamingService, UnaryService};
use tonic::{Code, Status, Streaming};
use tonic_prost::ProstCodec;

/// Where what a switch says to one client goes.
type Responder = UnboundedSender<Result<Response, Status>>;

/// What a switch has and did.
#[derive(Default)]
pub(super) struct State {
    cookie: Option<u64>,
    entries: HashMap<(u32, Vec<u8>), TableEntry>,
    streams: Vec<(u64, Uint128, Responder)>,
    next_stream: u64,
    /// Tables whose entries are refused.
    pub(super) refused: Vec<Table>,
    /// Updates of tables that were made.
    pub(super) updates: usize,
    /// Lists of digests that were acknowledged.
    pub(super) acknowledged: Vec<u64>,
    /// Pipelines that were pushed.
    pub(super) pipelines: usize,
}

/// A switch.
pub(super) struct Switch {
    pub(super) address: SocketAddr,
    program: Program,
    state: Arc<Mutex<State>>,
    end: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Switch {
    pub(super) fn start() -> Self {
        Self::start_at("127.0.0.1:0".parse().expect("an address"), Arc::default())
    }

    /// Ends it and starts it again at the same address, with what it had or with nothing.
    pub(super) fn restart(mut self, keeps: bool) -> Self {
        let address = self.address;
        self.stop();
        let state = if keeps { Arc::clone(&self.state) } else { Arc::default() };
        Self::start_at(address, state)
    }

    fn start_at(address: SocketAddr, state: Arc<Mutex<State>>) -> Self {
        let (told, address_of) = std::sync::mpsc::channel();
        let (end, ended) = oneshot::channel::<()>();
        let server =
            P4Runtime { state: Arc::clone(&state), program: Arc::new(Program::bmv2().expect("whole")) };
        let thread = std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async move {
                let listener = loop {
                    // The port of one that just ended may still be taken.
                    match TcpListener::bind(address).await {
                        Ok(listener) => break listener,
                        Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
                    }
                };
                told.send(listener.local_addr().expect("bound")).expect("waited for");
                let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
                let serving =
                    tonic::transport::Server::builder().add_service(server).serve_with_incoming(incoming);
                tokio::select! {
                    served = serving => served.expect("serves"),
                    _ = ended => {}
                }
            });
        });
        let address = address_of.recv().expect("it listens");
        let program = Program::bmv2().expect("whole");
        Self { address, program, state, end: Some(end), thread: Some(thread) }
    }

    fn stop(&mut self) {
        if let Some(end) = self.end.take() {
            let _ = end.send(());
        }
        if let Some(thread) = self.thread.take() {
            thread.join().expect("ends well");
        }
        self.state().streams.clear();
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("not poisoned")
    }

    /// Entries of a table.
    pub(super) fn rows(&self, table: Table) -> HashMap<Key, Content> {
        let state = self.state();
        let rows = state.entries.values().map(|entry| self.program.decode(entry).expect("ours"));
        rows.filter(|(key, _)| key.table == table).collect()
    }

    /// Puts an entry there that nobody asked for.
    pub(super) fn put(&self, key: &Key, content: &Content) {
        let Some(Entity { kind: Some(entity_kind::Kind::Table(entry)) }) = self.program.encode(key, content)
        else {
            panic!("{key} is an entry of a table");
        };
        self.state().entries.insert(place(&entry), entry);
    }

    /// Takes an entry away that should be there.
    pub(super) fn lose(&self, key: &Key) {
        let Some(Entity { kind: Some(entity_kind::Kind::Table(entry)) }) =
            self.program.encode(key, &Content::default())
        else {
            panic!("{key} is an entry of a table");
        };
        assert!(self.state().entries.remove(&place(&entry)).is_some(), "{key} was there");
    }

    /// Tells the master of sessions.
    pub(super) fn digest(&self, list: u64, sessions: &[(u32, u64, u16, u16)]) {
        let bits = |value: u64| {
            let all = value.to_be_bytes();
            let zeros = all.iter().take_while(|byte| **byte == 0).count().min(7);
            P4Data { kind: Some(data_kind::Kind::Bits(all[zeros..].to_vec())) }
        };
        let data = sessions.iter().map(|&(service, session, backend, generation)| {
            let members =
                vec![bits(service.into()), bits(session), bits(backend.into()), bits(generation.into())];
            P4Data { kind: Some(data_kind::Kind::Struct(StructLike { members })) }
        });
        let list = DigestList { digest_id: self.program.digest(), list_id: list, data: data.collect() };
        self.tell(response_kind::Kind::Digest(list));
    }

    /// Tells the master that an entry is idle.
    pub(super) fn idle(&self, key: &Key) {
        let Some(Entity { kind: Some(entity_kind::Kind::Table(entry)) }) =
            self.program.encode(key, &Content::default())
        else {
            panic!("{key} is an entry of a table");
        };
        self.tell(response_kind::Kind::Idle(IdleTimeoutNotification { entries: vec![entry] }));
    }

    fn tell(&self, kind: response_kind::Kind) {
        let state = self.state();
        let master =
            state.streams.iter().max_by_key(|(_, election, _)| *election).expect("somebody is connected");
        master.2.send(Ok(Response { kind: Some(kind) })).expect("connected");
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Waits until something is so.
pub(super) fn until(what: &str, is_so: impl Fn() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < Duration::from_secs(60), "{what}: not within a minute");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn place(entry: &TableEntry) -> (u32, Vec<u8>) {
    let bytes = entry.fields.iter().flat_map(prost::Message::encode_length_delimited_to_vec);
    (entry.table_id, bytes.collect())
}

impl State {
    /// Tells everybody who is master.
    fn elect(&self) {
        let highest = self.streams.iter().map(|(_, election, _)| *election).max();
        for (_, election, stream) in &self.streams {
            let code = if Some(*election) == highest { Code::Ok } else { Code::AlreadyExists };
            let status = Details { code: code as i32, ..Details::default() };
            let arbitration = Arbitration { device_id: 0, election_id: highest, status: Some(status) };
            let _ = stream.send(Ok(Response { kind: Some(response_kind::Kind::Arbitration(arbitration)) }));
        }
    }

    fn is_master(&self, election: Option<Uint128>) -> Result<(), Status> {
        let highest = self.streams.iter().map(|(_, election, _)| *election).max();
        if election == highest && highest.is_some() {
            Ok(())
        } else {
            Err(Status::permission_denied("not master"))
        }
    }

    fn write(&mut self, request: WriteRequest, program: &Program) -> Result<WriteResponse, Status> {
        self.is_master(request.election_id)?;
        if self.cookie.is_none() {
            return Err(Status::failed_precondition("no pipeline"));
        }
        let codes: Vec<Code> = request
            .updates
            .into_iter()
            .map(|update| self.update(update.kind, update.entity, program))
            .collect();
        if codes.iter().all(|code| *code == Code::Ok) {
            return Ok(WriteResponse {});
        }
        let errors = codes.iter().map(|code| {
            let error = EntryError { code: *code as i32, message: "as told".to_owned() };
            Any { type_url: "type.googleapis.com/p4.v1.Error".to_owned(), value: error.encode_to_vec() }
        });
        let details =
            Details { code: Code::Unknown as i32, message: String::new(), details: errors.collect() };
        Err(Status::with_details(Code::Unknown, "some failed", details.encode_to_vec().into()))
    }

    fn update(&mut self, kind: i32, entity: Option<Entity>, program: &Program) -> Code {
        let Some(Entity { kind: Some(entity_kind::Kind::Table(entry)) }) = entity else { return Code::Ok };
        let Ok((key, _)) = program.decode(&entry) else { return Code::InvalidArgument };
        if self.refused.contains(&key.table) {
            return Code::ResourceExhausted;
        }
        self.updates += 1;
        let (place, insert) = (place(&entry), UpdateKind::Insert as i32);
        let is_there = self.entries.contains_key(&place) || entry.is_default_action;
        match kind {
            kind if kind == UpdateKind::Delete as i32 => {
                if self.entries.remove(&place).is_some() {
                    Code::Ok
                } else {
                    Code::NotFound
                }
            }
            kind if (kind == insert) == is_there => {
                if is_there {
                    Code::AlreadyExists
                } else {
                    Code::NotFound
                }
            }
            _ => {
                self.entries.insert(place, entry);
                Code::Ok
            }
        }
    }

    fn read(&self, request: &ReadRequest) -> ReadResponse {
        let asked = request.entities.iter().filter_map(|entity| match &entity.kind {
            Some(entity_kind::Kind::Table(entry)) => Some(entry.table_id),
            _ => None,
        });
        let asked: Vec<u32> = asked.collect();
        let found = self.entries.values().filter(|entry| asked.contains(&entry.table_id));
        let entities = found.map(|entry| Entity { kind: Some(entity_kind::Kind::Table(entry.clone())) });
        ReadResponse { entities: entities.collect() }
    }
}

/// The service.
#[derive(Clone)]
struct P4Runtime {
    state: Arc<Mutex<State>>,
    program: Arc<Program>,
}

impl NamedService for P4Runtime {
    const NAME: &'static str = "p4.v1.P4Runtime";
}

type Answer<A> = Pin<Box<dyn Future<Output = Result<tonic::Response<A>, Status>> + Send>>;
type Responses = Pin<Box<dyn futures_util::Stream<Item = Result<Response, Status>> + Send>>;

fn answer<A: Send + 'static>(result: Result<A, Status>) -> Answer<A> {
    Box::pin(ready(result.map(tonic::Response::new)))
}

impl UnaryService<WriteRequest> for P4Runtime {
    type Response = WriteResponse;
    type Future = Answer<WriteResponse>;

    fn call(&mut self, request: tonic::Request<WriteRequest>) -> Self::Future {
        answer(self.state.lock().expect("not poisoned").write(request.into_inner(), &self.program))
    }
}

impl UnaryService<SetForwardingPipelineConfigRequest> for P4Runtime {
    type Response = SetForwardingPipelineConfigResponse;
    type Future = Answer<SetForwardingPipelineConfigResponse>;

    fn call(&mut self, request: tonic::Request<SetForwardingPipelineConfigRequest>) -> Self::Future {
        let request = request.into_inner();
        let mut state = self.state.lock().expect("not poisoned");
        if let Err(status) = state.is_master(request.election_id) {
            return answer(Err(status));
        }
        state.cookie = request.config.and_then(|config| config.cookie).map(|cookie| cookie.cookie);
        state.entries.clear();
        state.pipelines += 1;
        answer(Ok(SetForwardingPipelineConfigResponse {}))
    }
}

impl UnaryService<GetForwardingPipelineConfigRequest> for P4Runtime {
    type Response = GetForwardingPipelineConfigResponse;
    type Future = Answer<GetForwardingPipelineConfigResponse>;

    fn call(&mut self, _request: tonic::Request<GetForwardingPipelineConfigRequest>) -> Self::Future {
        let cookie = self.state.lock().expect("not poisoned").cookie;
        let Some(cookie) = cookie else { return answer(Err(Status::failed_precondition("no pipeline"))) };
        let config = ForwardingPipelineConfig {
            cookie: Some(Cookie { cookie }),
            ..ForwardingPipelineConfig::default()
        };
        answer(Ok(GetForwardingPipelineConfigResponse { config: Some(config) }))
    }
}

impl ServerStreamingService<ReadRequest> for P4Runtime {
    type Response = ReadResponse;
    type ResponseStream = stream::Iter<std::vec::IntoIter<Result<ReadResponse, Status>>>;
    type Future = Answer<Self::ResponseStream>;

    fn call(&mut self, request: tonic::Request<ReadRequest>) -> Self::Future {
        let read = self.state.lock().expect("not poisoned").read(request.get_ref());
        answer(Ok(stream::iter(vec![Ok(read)])))
    }
}

impl StreamingService<Request> for P4Runtime {
    type Response = Response;
    type ResponseStream = Responses;
    type Future = Answer<Responses>;

    fn call(&mut self, request: tonic::Request<Streaming<Request>>) -> Self::Future {
        let (responses, outgoing) = unbounded_channel();
        let mut requests = request.into_inner();
        let state = Arc::clone(&self.state);
        tokio::spawn(async move {
            let mut own = None;
            while let Ok(Some(request)) = requests.message().await {
                let mut state = state.lock().expect("not poisoned");
                match request.kind {
                    Some(request_kind::Kind::Arbitration(arbitration)) => {
                        let number = *own.get_or_insert(state.next_stream);
                        state.next_stream += 1;
                        state.streams.push((
                            number,
                            arbitration.election_id.unwrap_or_default(),
                            responses.clone(),
                        ));
                        state.elect();
                    }
                    Some(request_kind::Kind::DigestAck(ack)) => state.acknowledged.push(ack.list_id),
                    None => {}
                }
            }
            let mut state = state.lock().expect("not poisoned");
            state.streams.retain(|(number, ..)| Some(*number) != own);
            state.elect();
        });
        let stream = stream::unfold(outgoing, |mut outgoing| async {
            outgoing.recv().await.map(|response| (response, outgoing))
        });
        answer(Ok(stream.boxed()))
    }
}

impl Service<http::Request<Body>> for P4Runtime {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let this = self.clone();
        Box::pin(async move {
            Ok(match request.uri().path() {
                "/p4.v1.P4Runtime/Write" => {
                    Grpc::new(ProstCodec::<WriteResponse, WriteRequest>::default()).unary(this, request).await
                }
                "/p4.v1.P4Runtime/Read" => {
                    Grpc::new(ProstCodec::<ReadResponse, ReadRequest>::default())
                        .server_streaming(this, request)
                        .await
                }
                "/p4.v1.P4Runtime/SetForwardingPipelineConfig" => {
                    let codec = ProstCodec::<
                        SetForwardingPipelineConfigResponse,
                        SetForwardingPipelineConfigRequest,
                    >::default();
                    Grpc::new(codec).unary(this, request).await
                }
                "/p4.v1.P4Runtime/GetForwardingPipelineConfig" => {
                    let codec = ProstCodec::<
                        GetForwardingPipelineConfigResponse,
                        GetForwardingPipelineConfigRequest,
                    >::default();
                    Grpc::new(codec).unary(this, request).await
                }
                "/p4.v1.P4Runtime/StreamChannel" => {
                    Grpc::new(ProstCodec::<Response, Request>::default()).streaming(this, request).await
                }
                other => panic!("{other} is not called"),
            })
        })
    }
}
