//! `[events]`.

use crate::config::WebhookSpec;
use crate::config::document::Findings;
use crate::config::field::Owner;
use crate::config::file::{Events, File};
use crate::config::problem::Finding;

/// Checks who is told what happens.
pub(super) fn check(file: &File, findings: &Findings) -> Option<WebhookSpec> {
    let absent = Events::default();
    let (webhook, span) = file.events.get().unwrap_or(&absent).webhook.located()?;
    let owner = Owner { span, object: "[events.webhook]", findings };
    let (url, _) = webhook.url.required("url", "\"https://hooks.example.net/stickleback\"", &owner)?;
    if let Some(span) = webhook.authorities.span().filter(|_| !url.is_secured) {
        owner.report(
            Finding::error(span, "`authorities` works only with `https`")
                .suggest("write `https://` in `url`, or remove `authorities`"),
        );
    }
    Some(WebhookSpec {
        is_secured: url.is_secured,
        host: url.host.clone(),
        port: url.port,
        path: url.path.clone(),
        authorities: webhook.authorities.get().map(|path| path.0.clone()),
    })
}
