//! Errors as the API answers them: what failed, on which object, what was expected, what to do.

use crate::cluster::error::ClusterError;
use crate::cluster::membership::MembershipError;
use crate::reconcile::{ApplyError, ChangeError, Gone, QueryError};
use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use std::fmt;
use utoipa::ToSchema;

/// The body of every answer that is not a success.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ErrorBody {
    /// What is wrong.
    #[schema(example = "no such backend")]
    pub error: String,
    /// The object it is about.
    #[schema(example = "backend be9 of service web")]
    pub object: String,
    /// What would have been right.
    #[schema(example = "one of be1, be2, be3")]
    pub expected: String,
    /// What to do next.
    #[schema(example = "did you mean be1?")]
    pub hint: String,
}

/// An error and its HTTP status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiError {
    /// The status.
    pub status: StatusCode,
    /// The body.
    pub body: ErrorBody,
}

impl ApiError {
    /// An error of that status.
    pub fn new(
        status: StatusCode,
        error: impl Into<String>,
        object: impl Into<String>,
        expected: impl Into<String>,
        hint: impl Into<String>,
    ) -> Self {
        let body = ErrorBody {
            error: error.into(),
            object: object.into(),
            expected: expected.into(),
            hint: hint.into(),
        };
        Self { status, body }
    }

    /// A service that is not among `known`.
    pub fn unknown_service<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Self {
        Self::unknown(
            "no such service",
            format!("service {name}"),
            name,
            known,
            "`lbctl services` lists them",
        )
    }

    /// A backend that is not among `known`.
    pub fn unknown_backend<'a>(service: &str, name: &str, known: impl IntoIterator<Item = &'a str>) -> Self {
        let object = format!("backend {name} of service {service}");
        let hint = format!("`lbctl backends --service {service}` lists them");
        Self::unknown("no such backend", object, name, known, &hint)
    }

    fn unknown<'a>(
        error: &str,
        object: String,
        name: &str,
        known: impl IntoIterator<Item = &'a str>,
        otherwise: &str,
    ) -> Self {
        let known: Vec<&str> = known.into_iter().collect();
        let expected = match known.as_slice() {
            [] => "there is none at all".to_owned(),
            few if few.len() <= 12 => format!("one of {}", few.join(", ")),
            many => format!("one of {} and {} more", many[..12].join(", "), many.len() - 12),
        };
        let hint = did_you_mean(nearest(name, &known).map(str::to_owned), otherwise);
        Self::new(StatusCode::NOT_FOUND, error, object, expected, hint)
    }

    /// Input that cannot be read.
    pub fn bad_input(object: impl Into<String>, expected: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "cannot be read", object, expected, "see `lbctl help`")
    }

    /// The data plane did not do what was asked.
    pub fn data_plane(object: impl Into<String>, error: &dyn std::error::Error) -> Self {
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            chain(error),
            object,
            "the data plane to answer",
            "the daemon's log has the details; `lbctl status` shows whether it is being repaired",
        )
    }
}

impl From<Gone> for ApiError {
    fn from(_: Gone) -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "the daemon is stopping",
            "lbd",
            "a running daemon",
            "start it again: `systemctl start stickleback`",
        )
    }
}

impl From<MembershipError> for ApiError {
    fn from(error: MembershipError) -> Self {
        use ClusterError::{
            Already, Certificate, Itself, NoAuthority, NoCluster, NoMember, NoMemberNamed, NodeId, Refused,
            SeveralMembers, TokenText, TooSoon, Unreachable,
        };
        let (status, object, expected, hint) = match &error {
            MembershipError::Ended(_) => (
                StatusCode::SERVICE_UNAVAILABLE,
                "cluster",
                "a replica that runs",
                "restart lbd when its log says why",
            ),
            MembershipError::Replica(_) => (
                StatusCode::INTERNAL_SERVER_ERROR,
                "cluster",
                "a replica that starts",
                "restart lbd when it is mended",
            ),
            MembershipError::Cluster(inner) => match inner {
                NoCluster => {
                    (StatusCode::CONFLICT, "cluster", "a node that is in a cluster", "`lbctl help cluster`")
                }
                Already { .. } => (
                    StatusCode::CONFLICT,
                    "cluster",
                    "a node that is in no cluster",
                    "`lbctl cluster status` shows which",
                ),
                NoAuthority => (
                    StatusCode::CONFLICT,
                    "cluster",
                    "the node that holds the authority's key",
                    "`lbctl cluster status` on a node says whether it does",
                ),
                TooSoon { .. } => (
                    StatusCode::CONFLICT,
                    "secret session-key",
                    "one change in the longest lifetime of a session",
                    "with `--force` sessions that were not used since the last change may move",
                ),
                Itself { .. } | SeveralMembers { .. } => {
                    (StatusCode::CONFLICT, "member", "one other member", "`lbctl cluster status` lists them")
                }
                NoMember { .. } | NoMemberNamed { .. } | NodeId { .. } => (
                    StatusCode::NOT_FOUND,
                    "member",
                    "the id or name of a member",
                    "`lbctl cluster status` lists them",
                ),
                TokenText => (
                    StatusCode::BAD_REQUEST,
                    "token",
                    "sb1- and 96 hexadecimal digits",
                    "`lbctl cluster token` on the first node makes one",
                ),
                Refused { .. } => (
                    StatusCode::FORBIDDEN,
                    "cluster",
                    "a token that is open",
                    "each lets one machine in, once and in time: `lbctl cluster token` on the first node makes another",
                ),
                Unreachable { .. } | Certificate { .. } => (
                    StatusCode::BAD_GATEWAY,
                    "cluster",
                    "the node where `lbctl cluster init` ran, within reach by UDP",
                    "a firewall may be between, and only while a token is open it lets strangers in",
                ),
                _ => (
                    StatusCode::INTERNAL_SERVER_ERROR,
                    "cluster",
                    "it to be done",
                    "the daemon's log has the details",
                ),
            },
        };
        Self::new(status, chain(&error), object, expected, hint)
    }
}

impl From<QueryError> for ApiError {
    fn from(error: QueryError) -> Self {
        match error {
            QueryError::Gone(gone) => gone.into(),
            QueryError::Unknown(change) => change.into(),
            QueryError::DataPlane(error) => Self::data_plane("data plane", &error),
        }
    }
}

impl From<ChangeError> for ApiError {
    fn from(error: ChangeError) -> Self {
        let not_found = |error: &str, object: String, expected: &str, hint: String| {
            Self::new(StatusCode::NOT_FOUND, error, object, expected, hint)
        };
        match error {
            ChangeError::Gone(gone) => gone.into(),
            ChangeError::UnknownService { name, suggestion } => not_found(
                "no such service",
                format!("service {name}"),
                "the name of a configured service",
                did_you_mean(suggestion, "`lbctl services` lists them"),
            ),
            ChangeError::UnknownBackend { service, name, suggestion } => not_found(
                "no such backend",
                format!("backend {name} of service {service}"),
                "the name of a backend of that service",
                did_you_mean(suggestion, &format!("`lbctl backends --service {service}` lists them")),
            ),
            ChangeError::UnknownSession { service, session } => not_found(
                "no such session",
                format!("session {session:#018x} of service {service}"),
                "a session that has not expired",
                format!("`lbctl sessions list --service {service}` lists them"),
            ),
            ChangeError::Weight { weight } => Self::new(
                StatusCode::BAD_REQUEST,
                "weight out of range",
                format!("weight {weight}"),
                "0 to 1000",
                "0 gives the backend no new sessions",
            ),
            ChangeError::SessionMoved { service, session } => Self::new(
                StatusCode::CONFLICT,
                "the session moved at the same moment",
                format!("session {session:#018x} of service {service}"),
                "a session at rest",
                "try again",
            ),
            ChangeError::SessionsFull => Self::new(
                StatusCode::CONFLICT,
                "no room for a session more",
                "the table of bindings",
                "a table with room",
                "raise `bindings` in the configuration",
            ),
            ChangeError::State { ref path, .. } => Self::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                chain(&error),
                path.display().to_string(),
                "a state directory that lbd may write to",
                "nothing was changed; see --state-dir of lbd",
            ),
            ChangeError::NotReplicated => Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "the other nodes cannot be told",
                "the replication of bindings",
                "a replica that runs",
                "the daemon's log says why it ended; restart it: `systemctl restart stickleback`",
            ),
            ChangeError::DataPlane(error) => Self::data_plane("data plane", &error),
            ChangeError::Apply(error) => error.into(),
        }
    }
}

impl From<ApplyError> for ApiError {
    fn from(error: ApplyError) -> Self {
        match error {
            ApplyError::Gone(gone) => gone.into(),
            ApplyError::Layout(_) => Self::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                chain(&error),
                "configuration",
                "services and backends that fit the tables",
                "what ran before goes on",
            ),
            ApplyError::Unsettled(_) => Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                chain(&error),
                "configuration",
                "a data plane that is not being repaired",
                "try again in a moment",
            ),
            ApplyError::RolledBack { .. } | ApplyError::Repairing { .. } => {
                Self::data_plane("configuration", &error)
            }
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        (self.status, Json(self.body)).into_response()
    }
}

impl fmt::Display for ErrorBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.object, self.error)?;
        if !self.expected.is_empty() {
            write!(f, "\n  expected: {}", self.expected)?;
        }
        if !self.hint.is_empty() {
            write!(f, "\n  hint: {}", self.hint)?;
        }
        Ok(())
    }
}

/// An error with its causes on one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text.push_str(": ");
            text.push_str(&inner_text);
        }
        cause = inner.source();
    }
    text
}

fn did_you_mean(suggestion: Option<String>, otherwise: &str) -> String {
    suggestion.map_or_else(|| otherwise.to_owned(), |name| format!("did you mean {name}?"))
}

/// The known name that is most like `name`, if any is like it at all.
fn nearest<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    known
        .iter()
        .map(|candidate| (strsim::normalized_damerau_levenshtein(name, candidate), *candidate))
        .filter(|(score, _)| *score > 0.5)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_name_suggests_the_nearest() {
        let error = ApiError::unknown_service("wbe", ["dns", "web"]);
        assert_eq!(error.status, StatusCode::NOT_FOUND);
        assert_eq!(error.body.hint, "did you mean web?");
        assert_eq!(
            error.body.to_string(),
            "service wbe: no such service\n  expected: one of dns, web\n  hint: did you mean web?"
        );
    }

    #[test]
    fn unknown_name_without_likeness_says_where_to_look() {
        let error = ApiError::unknown_service("zzz", ["web"]);
        assert_eq!(error.body.hint, "`lbctl services` lists them");
        assert_eq!(ApiError::unknown_service("x", []).body.expected, "there is none at all");
    }

    #[test]
    fn json_shape() {
        let json = serde_json::to_value(ApiError::bad_input("x", "an address").body).expect("serializes");
        assert_eq!(
            json,
            serde_json::json!({"error": "cannot be read", "object": "x", "expected": "an address", "hint": "see `lbctl help`"})
        );
    }
}
