//! What a backend may receive, from everything that has a say in it.

use super::Admin;
use lb_common::abi::Status;

/// Status of a backend that the administrator wants so, with that weight and health.
///
/// The strictest voice wins. `healthy` is the verdict of the health checks; a backend without checks is healthy.
pub const fn effective(admin: Admin, weight: u32, healthy: bool) -> Status {
    match (admin, healthy) {
        (Admin::Disabled, _) | (Admin::Enabled | Admin::Draining, false) => Status::Down,
        (Admin::Draining, true) => Status::Draining,
        (Admin::Enabled, true) => {
            if weight == 0 {
                Status::Draining
            } else {
                Status::Up
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::effective;
    use crate::pool::Admin;
    use lb_common::abi::Status;

    #[test]
    fn the_strictest_voice_wins() {
        let cases = [
            (Admin::Enabled, 1, true, Status::Up),
            (Admin::Enabled, 1000, true, Status::Up),
            (Admin::Enabled, 0, true, Status::Draining),
            (Admin::Enabled, 1, false, Status::Down),
            (Admin::Enabled, 0, false, Status::Down),
            (Admin::Draining, 1, true, Status::Draining),
            (Admin::Draining, 0, true, Status::Draining),
            (Admin::Draining, 1, false, Status::Down),
            (Admin::Disabled, 1, true, Status::Down),
            (Admin::Disabled, 0, true, Status::Down),
            (Admin::Disabled, 1, false, Status::Down),
        ];
        for (admin, weight, healthy, status) in cases {
            assert_eq!(effective(admin, weight, healthy), status, "{admin:?} weight {weight} {healthy}");
        }
    }
}
