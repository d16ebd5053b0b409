//! Commands that ask the daemon and show its answer.

use super::args::{Command, Output, Sessions};
use super::table::Look;
use super::{CliError, answer, drain, follow, present};
use crate::admin::client::{Client, ClientError, encode, with_query};
use crate::admin::explain::protocol_name;
use crate::admin::row::{
    BackendRow, EventRow, ExplainBody, Explanation, FlowPage, PinBody, ReloadRow, SealedRow, ServiceRow,
    SessionPage, SessionRow, StatusRow, WeightBody,
};
use crate::dataplane::xdp::{Options, Xdp};
use hyper::Method;
use std::io::{BufRead, IsTerminal, Write};
use std::path::Path;

/// Runs a command that needs the daemon.
pub(super) async fn run(
    command: Command,
    client: &Client,
    form: Output,
    look: Look,
    out: &mut dyn Write,
) -> Result<(), CliError> {
    match command {
        Command::Status => {
            let status: StatusRow = client.get("/v1/status").await?;
            answer(out, form, &status, |s| present::status(s, look))
        }
        Command::Services => {
            let services: Vec<ServiceRow> = client.get("/v1/services").await?;
            answer(out, form, &services, |s| present::services(s, look))
        }
        Command::Backends(args) => {
            let path = with_query("/v1/backends", &[("service", args.service)]);
            let backends: Vec<BackendRow> = client.get(&path).await?;
            answer(out, form, &backends, |b| present::backends(b, look))
        }
        Command::Sessions(command) => sessions(command, client, form, look, out).await,
        Command::Flows(args) => {
            let query = [
                ("service", args.service),
                ("backend", args.backend),
                ("client", args.client.map(|ip| ip.to_string())),
                ("state", args.state.map(|state| state.name().to_owned())),
                ("limit", Some(args.limit.to_string())),
            ];
            let page: FlowPage = client.get(&with_query("/v1/flows", &query)).await?;
            answer(out, form, &page, |p| present::flows(p, look))
        }
        Command::Drain(args) => {
            let name = &args.name;
            let what = match args.deadline {
                Some(seconds) => format!("drain?deadline_seconds={seconds}"),
                None => "drain".to_owned(),
            };
            let mut row = steer(client, Method::POST, &name.service, &name.backend, &what).await?;
            if args.wait && drain::wait(client, name).await? == drain::End::Late {
                row = steer(client, Method::POST, &name.service, &name.backend, "disable").await?;
            }
            answer(out, form, &row, |b| present::backends(std::slice::from_ref(b), look))
        }
        Command::Failback { service } => {
            let path = format!("/v1/services/{}/failback", encode(&service));
            let row: ServiceRow = client.send(Method::POST, &path, &()).await?;
            answer(out, form, &row, |row| present::services(std::slice::from_ref(row), look))
        }
        Command::Maintenance(name) => {
            let row = steer(client, Method::POST, &name.service, &name.backend, "disable").await?;
            answer(out, form, &row, |b| present::backends(std::slice::from_ref(b), look))
        }
        Command::Undrain(name) => {
            let row = steer(client, Method::POST, &name.service, &name.backend, "undrain").await?;
            answer(out, form, &row, |b| present::backends(std::slice::from_ref(b), look))
        }
        Command::Weight(args) => {
            let path =
                format!("/v1/backends/{}/{}/weight", encode(&args.name.service), encode(&args.name.backend));
            let row: BackendRow =
                client.send(Method::PUT, &path, &WeightBody { weight: args.weight }).await?;
            answer(out, form, &row, |b| present::backends(std::slice::from_ref(b), look))
        }
        Command::Explain(args) => {
            let body = ExplainBody {
                src: args.src.to_string(),
                dst: args.dst.to_string(),
                proto: protocol_name(args.proto.into()).to_owned(),
                cookie: args.cookie,
                path: args.path,
                cid: args.cid,
                payload: args.payload,
            };
            let told: Explanation = client.send(Method::POST, "/v1/explain", &body).await?;
            answer(out, form, &told, |e| present::explanation(e, look))
        }
        Command::Seal(args) => {
            let query = [
                ("service", Some(args.service)),
                ("backend", Some(args.backend)),
                ("secondary", args.secondary),
            ];
            let sealed: SealedRow = client.get(&with_query("/v1/seal", &query)).await?;
            answer(out, form, &sealed, |s| format!("{}\n", s.segment))
        }
        Command::Reload => {
            let done: ReloadRow = client.send(Method::POST, "/v1/reload", &()).await?;
            answer(out, form, &done, |r| present::reload(r, look))
        }
        Command::Detach(args) => {
            if !args.yes && !confirmed()? {
                return Err(CliError::Declined("answer yes, or give --yes"));
            }
            let daemon = match client.act(Method::POST, "/v1/detach").await {
                Ok(()) => true,
                Err(ClientError::NotRunning { .. }) => detach_alone(&args.pin_root).map(|()| false)?,
                Err(error) => return Err(error.into()),
            };
            let done = serde_json::json!({"detached": true, "daemon_stopped": daemon});
            let text = match daemon {
                true => "Detached; what was pinned is removed, and lbd has stopped.\n",
                false => "Detached; what was pinned is removed. (lbd was not running.)\n",
            };
            answer(out, form, &done, |_| text.to_owned())
        }
        Command::Events(args) => {
            if args.follow {
                return follow::run(&args, client, form, look, out).await;
            }
            let query = [("service", args.service), ("limit", Some(args.limit.to_string()))];
            let events: Vec<EventRow> = client.get(&with_query("/v1/events", &query)).await?;
            answer(out, form, &events, |e| present::events(e, look))
        }
        // Answered without this function, see `cli::run`.
        Command::Config(_) | Command::Cluster(_) | Command::Top(_) | Command::Completions { .. } => Ok(()),
    }
}

/// Removes a data plane that no daemon runs.
fn detach_alone(pin_root: &Path) -> Result<(), CliError> {
    let options = Options { root: pin_root.to_owned(), ..Options::default() };
    if !Xdp::is_left(&options) {
        return Err(CliError::NothingPinned { root: pin_root.to_owned() });
    }
    Ok(Xdp::remove(&options)?)
}

async fn sessions(
    command: Sessions,
    client: &Client,
    form: Output,
    look: Look,
    out: &mut dyn Write,
) -> Result<(), CliError> {
    match command {
        Sessions::List(args) => {
            let query = [
                ("service", args.service),
                ("backend", args.backend),
                ("client", args.client.map(|ip| ip.to_string())),
                ("limit", Some(args.limit.to_string())),
            ];
            let page: SessionPage = client.get(&with_query("/v1/sessions", &query)).await?;
            answer(out, form, &page, |p| present::sessions(p, look))
        }
        Sessions::Show(name) => {
            let path = session_path(&name.service, &name.key());
            let row: SessionRow = client.get(&path).await?;
            answer(out, form, &row, |s| present::session(s, look))
        }
        Sessions::Delete(name) => {
            client.act(Method::DELETE, &session_path(&name.service, &name.key())).await?;
            let done = serde_json::json!({"deleted": true, "service": name.service, "key": name.key()});
            answer(out, form, &done, |_| format!("Deleted {} of service {}.\n", name.key(), name.service))
        }
        Sessions::Pin(args) => {
            let (key, backend) = args.key_and_backend();
            let path = format!("{}/pin", session_path(&args.service, &key));
            let body =
                PinBody { backend, lifetime_seconds: args.lifetime.map(|lifetime| lifetime.as_secs()) };
            let row: SessionRow = client.send(Method::PUT, &path, &body).await?;
            answer(out, form, &row, |s| present::session(s, look))
        }
    }
}

async fn steer(
    client: &Client,
    method: Method,
    service: &str,
    backend: &str,
    verb: &str,
) -> Result<BackendRow, CliError> {
    let path = format!("/v1/backends/{}/{}/{verb}", encode(service), encode(backend));
    Ok(client.send(method, &path, &()).await?)
}

fn session_path(service: &str, key: &str) -> String {
    format!("/v1/sessions/{}/{}", encode(service), encode(key))
}

fn confirmed() -> Result<bool, CliError> {
    if !std::io::stdin().is_terminal() {
        return Ok(false);
    }
    eprint!("This ends the balancing of all services and forgets every binding and flow. Type yes: ");
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line)?;
    Ok(line.trim() == "yes")
}
