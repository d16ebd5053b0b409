//! A measured case.

use super::template::Template;

/// The program that a case runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Subject {
    /// A program that drops: the least the kernel can measure.
    Drop,
    /// One hash look-up and the encapsulation.
    ReferenceOne,
    /// The work of a connection-tracking balancer.
    ReferenceFull,
    /// The product's entry program.
    Product,
}

/// A measured case; its floor is the MAC swap on the same frames and flows.
#[derive(Clone, Debug)]
pub struct Case {
    /// `mode/what/how many`.
    pub name: String,
    /// What runs.
    pub subject: Subject,
    /// On which frames.
    pub template: Template,
    /// Net nanoseconds it may cost at most.
    pub target: Option<f64>,
}

impl Case {
    /// A case without a target.
    pub fn new(name: impl Into<String>, subject: Subject, template: Template) -> Self {
        Self { name: name.into(), subject, template, target: None }
    }

    /// With the net nanoseconds it may cost at most.
    #[must_use]
    pub fn at_most(mut self, nanoseconds: f64) -> Self {
        self.target = Some(nanoseconds);
        self
    }
}
