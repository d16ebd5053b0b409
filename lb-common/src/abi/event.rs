//! What the XDP programs tell `lbd`.

/// A binding was made or moved.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct BindingEvent {
    /// The session key.
    pub session: u64,
    /// [`super::Service::id`].
    pub service: u32,
    /// A [`BindingEventKind`].
    pub kind: u32,
    /// The [`super::BindingWord`] after the event.
    pub word: u64,
    /// When it expires, nanoseconds of the monotonic clock.
    pub expires: u64,
}

/// Kinds of [`BindingEvent`].
#[repr(u32)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum BindingEventKind {
    /// A new binding.
    Made = 1,
    /// An existing binding got another backend.
    Moved = 2,
    /// The sweep found a binding whose event was lost.
    Found = 3,
}

super::pod!(BindingEvent: 32);
