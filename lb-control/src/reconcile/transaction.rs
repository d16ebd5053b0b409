//! Runs writes, all of them or none.

use super::{image::Image, step::Step};
use crate::dataplane::{DataPlane, Error, Migration};

/// Writes that failed.
#[derive(Debug)]
pub(super) struct Failure {
    /// Why.
    pub(super) source: Error,
    /// Why taking back failed too; then nobody knows what the tables hold.
    pub(super) rollback: Option<Box<Error>>,
}

/// Runs all steps and takes note of them in `actual`, or takes all of them back.
pub(super) fn run(
    plane: &mut dyn DataPlane,
    actual: &mut Image,
    steps: Vec<Step>,
) -> Result<Migration, Failure> {
    let (mut done, mut migration) = (Vec::new(), Migration::default());
    for step in steps {
        let result = step.run(plane);
        if result.is_ok() {
            step.note(actual);
        }
        // One that failed may have done its work, or a part of it.
        done.push(step);
        let source = match result {
            Ok(copied) => {
                migration = copied.unwrap_or(migration);
                continue;
            }
            Err(source) => source,
        };
        let mut rollback = None;
        // Goes on after a failure: the more is taken back, the less is wrong until the repair.
        for undo in done.into_iter().rev().filter_map(Step::undo) {
            match undo.run(plane) {
                Ok(_) => undo.note(actual),
                Err(error) => drop(rollback.get_or_insert(Box::new(error))),
            }
        }
        return Err(Failure { source, rollback });
    }
    Ok(migration)
}

/// Runs all steps up to the first that fails.
pub(super) fn run_forward(
    plane: &mut dyn DataPlane,
    actual: &mut Image,
    steps: &[Step],
) -> Result<(), Error> {
    for step in steps {
        step.run(plane)?;
        step.note(actual);
    }
    Ok(())
}
