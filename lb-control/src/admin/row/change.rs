//! Differences between configurations, and what a reload did.

use crate::config::{Change, Difference, Effect};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// One difference.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ChangeRow {
    /// What changes.
    #[schema(example = "service web, backend be2: weight")]
    pub object: String,
    /// What it was; absent when it is new.
    pub before: Option<String>,
    /// What it becomes; absent when it goes.
    pub after: Option<String>,
    /// What that means for traffic: `live` (nothing is interrupted), `migrates-tables`, `reattaches`,
    /// `rebinds-sessions`, `ends-connections` or `needs-restart`.
    pub effect: String,
}

/// The differences between two configurations.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DiffRow {
    /// Where the first comes from: `running` or a file.
    pub from: String,
    /// Where the second comes from.
    pub to: String,
    /// Every difference; none = both mean the same.
    pub changes: Vec<ChangeRow>,
}

/// A successful reload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ReloadRow {
    /// The file that was read.
    pub file: String,
    /// What it changed.
    pub changes: Vec<ChangeRow>,
}

/// A configuration file's name and contents.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DiffBody {
    /// Its name, for messages.
    pub file: String,
    /// Its contents.
    pub text: String,
}

impl From<&Difference> for ChangeRow {
    fn from(difference: &Difference) -> Self {
        let changed = |object: String, change: &Change| Self {
            object: format!("{object}: {}", change.field),
            before: Some(change.from.clone()),
            after: Some(change.to.clone()),
            effect: effect_name(change.effect).to_owned(),
        };
        let whole = |object: String, before, after, effect| Self {
            object,
            before,
            after,
            effect: effect_name(effect).to_owned(),
        };
        match difference {
            Difference::NodeChanged(change) => changed("node".to_owned(), change),
            Difference::ServiceAdded { service, front, mode, backends } => {
                let after = Some(format!("{front}, {mode}, {backends} backends"));
                whole(format!("service {service}"), None, after, Effect::Live)
            }
            Difference::ServiceRemoved { service, front } => {
                whole(format!("service {service}"), Some(front.clone()), None, Effect::EndsConnections)
            }
            Difference::ServiceChanged { service, change } => changed(format!("service {service}"), change),
            Difference::BackendAdded { service, backend, address, weight } => {
                let after = Some(format!("{address}, weight {weight}"));
                whole(format!("service {service}, backend {backend}"), None, after, Effect::Live)
            }
            Difference::BackendRemoved { service, backend } => {
                let object = format!("service {service}, backend {backend}");
                whole(object, Some("a backend".to_owned()), None, Effect::RebindsSessions)
            }
            Difference::BackendChanged { service, backend, change } => {
                changed(format!("service {service}, backend {backend}"), change)
            }
        }
    }
}

const fn effect_name(effect: Effect) -> &'static str {
    match effect {
        Effect::Live => "live",
        Effect::MigratesTables => "migrates-tables",
        Effect::Reattaches => "reattaches",
        Effect::RebindsSessions => "rebinds-sessions",
        Effect::EndsConnections => "ends-connections",
        Effect::NeedsRestart => "needs-restart",
    }
}
