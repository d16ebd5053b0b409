//! Answers that are refreshed in place.

use std::io::{self, Write};

/// Cursor to the upper left corner.
const HOME: &str = "\x1b[H";
/// Erase from the cursor to the end of the line.
const ERASE_LINE: &str = "\x1b[K";
/// Erase from the cursor to the end of the screen.
const ERASE_BELOW: &str = "\x1b[J";
/// Change to the other screen and hide the cursor; and back.
const ENTER: &str = "\x1b[?1049h\x1b[?25l";
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";

/// Where frames go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Screen {
    /// One over the other.
    InPlace,
    /// One after the other.
    Rolling,
}

impl Screen {
    /// Before the first frame.
    pub(super) fn enter(self, out: &mut dyn Write) -> io::Result<()> {
        match self {
            Self::InPlace => out.write_all(ENTER.as_bytes()),
            Self::Rolling => Ok(()),
        }
    }

    /// A frame of lines.
    pub(super) fn frame(self, out: &mut dyn Write, text: &str) -> io::Result<()> {
        match self {
            Self::InPlace => {
                let text = text.replace('\n', &format!("{ERASE_LINE}\n"));
                write!(out, "{HOME}{text}{ERASE_BELOW}")?;
            }
            Self::Rolling => out.write_all(text.as_bytes())?,
        }
        out.flush()
    }

    /// After the last frame.
    pub(super) fn leave(self, out: &mut dyn Write) -> io::Result<()> {
        match self {
            Self::InPlace => {
                out.write_all(LEAVE.as_bytes())?;
                out.flush()
            }
            Self::Rolling => Ok(()),
        }
    }
}
