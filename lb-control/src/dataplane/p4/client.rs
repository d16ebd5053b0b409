//! Calls of P4Runtime over gRPC.

use super::program::Program;
use super::proto::{
    ConfigAction, Cookie, Entity, EntryError, ForwardingPipelineConfig, GetForwardingPipelineConfigRequest,
    GetForwardingPipelineConfigResponse, ReadRequest, ReadResponse, Request, Response, ResponseType,
    SetForwardingPipelineConfigRequest, SetForwardingPipelineConfigResponse, Status as Details, Uint128,
    Update, WriteRequest, WriteResponse,
};
use futures_util::Stream;
use prost::Message;
use std::time::Duration;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, IntoRequest as _, Status, Streaming};
use tonic_prost::ProstCodec;

/// How long a switch may take to be connected to.
const CONNECT: Duration = Duration::from_secs(2);
/// How long nothing may be heard before the kernel asks whether the switch is there.
const QUIET: Duration = Duration::from_secs(5);
/// How long it may take to answer a call.
const ANSWER: Duration = Duration::from_secs(30);
/// Largest answer: a table of a million sessions, in parts.
const LARGEST: usize = 256 << 20;

/// Largest trailer: an error for each entry of a batch.
const LARGEST_TRAILER: u32 = 4 << 20;

/// A switch that is connected.
#[derive(Clone, Debug)]
pub(super) struct Client {
    grpc: Grpc<Channel>,
    device: u64,
    election: Uint128,
}

impl Client {
    /// Connects to `host:port`.
    pub(super) async fn connect(
        address: &str,
        device: u64,
        election: Uint128,
    ) -> Result<Self, tonic::transport::Error> {
        let endpoint = Endpoint::from_shared(format!("http://{address}"))?;
        let endpoint = endpoint.connect_timeout(CONNECT).tcp_nodelay(true);
        // By TCP and not by HTTP/2: gRPC servers end connections whose peers ping more often than every five minutes.
        let endpoint = endpoint.tcp_keepalive(Some(QUIET)).tcp_keepalive_interval(Some(QUIET / 5));
        // What is wrong with each entry of a batch comes in the trailer.
        let endpoint = endpoint.http2_max_header_list_size(LARGEST_TRAILER);
        let channel = endpoint.tcp_keepalive_retries(Some(5)).connect().await?;
        let grpc = Grpc::new(channel).max_decoding_message_size(LARGEST).max_encoding_message_size(LARGEST);
        Ok(Self { grpc, device, election })
    }

    /// Opens the stream that mastership hangs on.
    pub(super) async fn stream(
        &mut self,
        requests: impl Stream<Item = Request> + Send + 'static,
    ) -> Result<Streaming<Response>, Status> {
        self.ready().await?;
        let path = path("StreamChannel");
        let codec: ProstCodec<Request, Response> = ProstCodec::default();
        let answer = self.grpc.streaming(tonic::Request::new(requests), path, codec).await?;
        Ok(answer.into_inner())
    }

    /// What tells the pipeline that runs from others; `None` = none runs, or one without a number.
    pub(super) async fn running(&mut self) -> Result<Option<u64>, Status> {
        let request = GetForwardingPipelineConfigRequest {
            device_id: self.device,
            response_type: ResponseType::CookieOnly as i32,
        };
        let answer: Result<GetForwardingPipelineConfigResponse, Status> =
            self.call("GetForwardingPipelineConfig", request).await;
        match answer {
            Ok(answer) => Ok(answer.config.and_then(|config| config.cookie).map(|cookie| cookie.cookie)),
            Err(status) if status.code() == Code::FailedPrecondition => Ok(None),
            Err(status) => Err(status),
        }
    }

    /// Has the switch run a program; its tables are empty then.
    pub(super) async fn run(&mut self, program: &Program) -> Result<(), Status> {
        let (info, device_config) = program.pipeline();
        let config = ForwardingPipelineConfig {
            p4info: Some(info),
            p4_device_config: device_config,
            cookie: Some(Cookie { cookie: program.cookie() }),
        };
        let request = SetForwardingPipelineConfigRequest {
            device_id: self.device,
            election_id: Some(self.election),
            action: ConfigAction::VerifyAndCommit as i32,
            config: Some(config),
        };
        let done: SetForwardingPipelineConfigResponse =
            self.call("SetForwardingPipelineConfig", request).await?;
        let SetForwardingPipelineConfigResponse {} = done;
        Ok(())
    }

    /// Makes updates; answers what was wrong with each, in their order.
    pub(super) async fn write(&mut self, updates: Vec<Update>) -> Result<Vec<Option<EntryError>>, Status> {
        let count = updates.len();
        let request = WriteRequest { device_id: self.device, election_id: Some(self.election), updates };
        let answer: Result<WriteResponse, Status> = self.call("Write", request).await;
        match answer {
            Ok(WriteResponse {}) => Ok(vec![None; count]),
            Err(status) => by_entry(&status, count).ok_or(status),
        }
    }

    /// Reads entities.
    pub(super) async fn read(&mut self, entities: Vec<Entity>) -> Result<Vec<Entity>, Status> {
        self.ready().await?;
        let request = ReadRequest { device_id: self.device, entities };
        let codec: ProstCodec<ReadRequest, ReadResponse> = ProstCodec::default();
        let asked = self.grpc.server_streaming(request.into_request(), path("Read"), codec);
        let answer = tokio::time::timeout(ANSWER, asked).await.map_err(|_| late("Read"))??;
        let mut parts = answer.into_inner();
        let mut all = Vec::new();
        while let Some(part) =
            tokio::time::timeout(ANSWER, parts.message()).await.map_err(|_| late("Read"))??
        {
            all.extend(part.entities);
        }
        Ok(all)
    }

    async fn call<Q, A>(&mut self, method: &'static str, request: Q) -> Result<A, Status>
    where
        Q: Message + Send + Sync + 'static,
        A: Message + Default + Send + Sync + 'static,
    {
        self.ready().await?;
        let codec: ProstCodec<Q, A> = ProstCodec::default();
        let asked = self.grpc.unary(request.into_request(), path(method), codec);
        let answer = tokio::time::timeout(ANSWER, asked).await.map_err(|_| late(method))??;
        Ok(answer.into_inner())
    }

    async fn ready(&mut self) -> Result<(), Status> {
        let ready = self.grpc.ready().await;
        ready.map_err(|error| Status::unavailable(format!("the connection is gone: {error}")))
    }
}

/// What a failed write says of each update; `None` = it says nothing of them, so none was made.
fn by_entry(status: &Status, count: usize) -> Option<Vec<Option<EntryError>>> {
    let details = Details::decode(status.details()).ok()?.details;
    if details.len() != count {
        return None;
    }
    let errors = details.iter().map(|any| EntryError::decode(&any.value[..]).ok());
    errors.map(|error| error.map(|error| (error.code != 0).then_some(error))).collect()
}

fn late(method: &str) -> Status {
    Status::deadline_exceeded(format!("the switch did not answer {method} within {} s", ANSWER.as_secs()))
}

fn path(method: &'static str) -> PathAndQuery {
    let path = format!("/p4.v1.P4Runtime/{method}");
    path.parse().expect("a path of letters")
}
