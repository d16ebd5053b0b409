//! Held bytes on their way to the backend.
