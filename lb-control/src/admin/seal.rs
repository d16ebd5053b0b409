//! What applications put into cookies that name servers under a MAC.

use super::error::ApiError;
use super::row::SealedRow;
use axum::http::StatusCode;
use lb_common::abi::Reading;
use lb_common::affinity::pair::{self, Refused};
use lb_common::affinity::ticket::{self, Kind};
use lb_core::pool::mark::{route_mark, route_text};
use lb_core::pool::secret::words;
use lb_core::pool::{AffinitySpec, BackendSpec, Desired, ServiceSpec};

/// The segment that names a server of a service, or of the pool of a path; of a `pair`, the primary and the secondary.
///
/// It is sealed with the segment key in use, and good for as long as a node accepts that one.
pub(super) fn seal(
    desired: &Desired,
    name: &str,
    backend: &str,
    secondary: Option<&str>,
) -> Result<SealedRow, ApiError> {
    let Some((service, pool)) = find(desired, name) else {
        let pools = desired.pools();
        return Err(ApiError::unknown_service(name, pools.iter().map(|pool| pool.service.name.as_str())));
    };
    let AffinitySpec::HttpCookie(cookie) = &service.affinity else {
        return Err(unsealed(name, "its affinity is not http-cookie"));
    };
    let Some(key) = desired.node.secrets.segment.first() else {
        return Err(unsealed(name, "the node has no segment key"));
    };
    let secret = words(&key.key);
    let segment = match (cookie.reading, secondary) {
        (Reading::SealedRoute, None) => {
            let text = route_text(server(name, &pool, backend)?);
            let mark = route_mark(text, &desired.node.session_secret);
            ticket::issue(Kind::Route, mark, false, service.id, key.id, &secret)
        }
        (Reading::Pair, Some(secondary)) => {
            let chosen = [server(name, &pool, backend)?.number, server(name, &pool, secondary)?.number];
            let mut numbers: Vec<u64> = pool.iter().map(|backend| backend.number).collect();
            numbers.sort_unstable();
            pair::issue(&numbers, chosen, service.id, key.id, &secret)
                .map_err(|refused| useless(name, backend, secondary, &refused))?
        }
        (Reading::SealedRoute, Some(secondary)) => {
            let object = format!("secondary {secondary} of service {name}");
            return Err(ApiError::bad_input(object, "one backend, for its cookies are read as sealed-route"));
        }
        (Reading::Pair, None) => {
            let object = format!("backend {backend} of service {name}, alone");
            return Err(ApiError::bad_input(
                object,
                "primary and secondary, for its cookies are read as pair",
            ));
        }
        (Reading::Bind | Reading::Route, _) => {
            return Err(unsealed(name, "its cookies are read as they are"));
        }
    };
    Ok(SealedRow {
        service: service.name.clone(),
        cookie: cookie.name.clone(),
        delimiter: cookie.part.map(|(delimiter, _)| char::from(delimiter).to_string()),
        place: cookie.part.map(|(_, index)| u16::from(index) + 1),
        segment: segment.iter().map(|&byte| char::from(byte)).collect(),
        key: key.id,
    })
}

/// The service that has a pool of that name, and the pool.
fn find<'a>(desired: &'a Desired, name: &str) -> Option<(&'a ServiceSpec, Vec<BackendSpec>)> {
    desired.services.iter().find_map(|service| {
        let pool = service.pools().into_iter().find(|pool| pool.service.name == name)?;
        Some((service, pool.service.backends))
    })
}

fn server<'a>(service: &str, pool: &'a [BackendSpec], name: &str) -> Result<&'a BackendSpec, ApiError> {
    let known = pool.iter().map(|backend| backend.name.as_str());
    let found = pool.iter().find(|backend| backend.name == name);
    found.ok_or_else(|| ApiError::unknown_backend(service, name, known))
}

fn unsealed(service: &str, why: &str) -> ApiError {
    ApiError::new(
        StatusCode::CONFLICT,
        format!("nothing is sealed for it: {why}"),
        format!("service {service}"),
        "a service whose cookies are read as sealed-route or pair",
        "see `read` of http-cookie in docs/configuration.md",
    )
}

fn useless(service: &str, primary: &str, secondary: &str, refused: &Refused) -> ApiError {
    ApiError::new(
        StatusCode::CONFLICT,
        refused.to_string(),
        format!("backends {primary} and {secondary} of service {service}"),
        "two servers whose numbers have a sum of their own",
        "take another secondary",
    )
}
