//! Lengths of a connection id's parts, and the form they choose.

/// How server id and nonce stand in a connection id.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Form {
    /// As they are.
    Plain,
    /// As one AES block.
    SinglePass,
    /// Through four rounds of a Feistel network.
    FourPass,
}

/// Lengths of server id and nonce, checked against the draft's limits (section 5.3).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Layout {
    server: u8,
    nonce: u8,
}

/// Lengths that no connection id can have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LayoutError {
    /// A server id has 1 to 15 bytes.
    ServerId(u8),
    /// A nonce has 4 to 18 bytes.
    Nonce(u8),
    /// Both together have at most 19 bytes: QUIC's connection ids have 20 (RFC 9000 section 17.2).
    Sum(u8),
}

impl core::fmt::Display for LayoutError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::ServerId(n) => write!(f, "a server id of {n} bytes: expected 1 to 15"),
            Self::Nonce(n) => write!(f, "a nonce of {n} bytes: expected 4 to 18"),
            Self::Sum(n) => write!(f, "server id and nonce of {n} bytes together: expected at most 19"),
        }
    }
}

impl core::error::Error for LayoutError {}

impl Layout {
    /// Lengths in bytes.
    pub const fn new(server: u8, nonce: u8) -> Result<Self, LayoutError> {
        if server < 1 || server > 15 {
            return Err(LayoutError::ServerId(server));
        }
        if nonce < 4 || nonce > 18 {
            return Err(LayoutError::Nonce(nonce));
        }
        if server + nonce > 19 {
            return Err(LayoutError::Sum(server + nonce));
        }
        Ok(Self { server, nonce })
    }

    /// Bytes of the server id.
    #[inline(always)]
    pub const fn server(self) -> u8 {
        self.server
    }

    /// Bytes of the nonce.
    #[inline(always)]
    pub const fn nonce(self) -> u8 {
        self.nonce
    }

    /// Bytes of both, 5 to 19.
    #[inline(always)]
    pub const fn block(self) -> u8 {
        self.server + self.nonce
    }

    /// Bytes of a connection id that has nothing else.
    #[inline(always)]
    pub const fn cid(self) -> u8 {
        1 + self.block()
    }

    /// The form of connection ids with these lengths (section 5.4).
    #[inline(always)]
    pub const fn form(self, encrypted: bool) -> Form {
        if !encrypted {
            Form::Plain
        } else if self.block() == 16 {
            Form::SinglePass
        } else {
            Form::FourPass
        }
    }
}
