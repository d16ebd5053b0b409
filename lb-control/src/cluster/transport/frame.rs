//! Frames on a stream: four bytes of length, big-endian, and as many bytes.

use crate::cluster::error::ClusterError;
use quinn::{ReadExactError, RecvStream, SendStream};
use serde::{Serialize, de::DeserializeOwned};

/// Bytes of a control frame: a member list with every member in it fits.
pub(super) const CONTROL: usize = 4 << 20;
/// Bytes of a request to join, and of other things that strangers send.
pub(super) const STRANGER: usize = 16 << 10;
/// Bytes of a message between members.
pub(super) const MESSAGE: usize = 1 << 20;

/// Reads a frame of at most so many bytes; `None` = the stream ended before one began.
pub(super) async fn read(stream: &mut RecvStream, most: usize) -> Result<Option<Vec<u8>>, ClusterError> {
    let mut length = [0; 4];
    match stream.read_exact(&mut length).await {
        Ok(()) => {}
        Err(ReadExactError::FinishedEarly(0)) => return Ok(None),
        Err(error) => return Err(lost(error)),
    }
    let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
    if length > most {
        let reason = format!("a frame of {length} bytes, at most {most} are allowed");
        return Err(ClusterError::Protocol { reason });
    }
    let mut bytes = vec![0; length];
    stream.read_exact(&mut bytes).await.map_err(lost)?;
    Ok(Some(bytes))
}

/// Writes a frame.
pub(super) async fn write(stream: &mut SendStream, bytes: &[u8]) -> Result<(), ClusterError> {
    let length = u32::try_from(bytes.len())
        .map_err(|_| ClusterError::Protocol { reason: format!("a frame of {} bytes", bytes.len()) })?;
    stream.write_all(&length.to_be_bytes()).await.map_err(lost)?;
    stream.write_all(bytes).await.map_err(lost)
}

/// Reads a frame that holds JSON.
pub(super) async fn read_json<T: DeserializeOwned>(
    stream: &mut RecvStream,
    most: usize,
) -> Result<T, ClusterError> {
    let bytes = read(stream, most).await?.ok_or_else(|| lost("the stream ended"))?;
    serde_json::from_slice(&bytes).map_err(|error| ClusterError::Protocol { reason: error.to_string() })
}

/// Writes a frame of JSON.
pub(super) async fn write_json<T: Serialize>(stream: &mut SendStream, value: &T) -> Result<(), ClusterError> {
    let bytes =
        serde_json::to_vec(value).map_err(|error| ClusterError::Protocol { reason: error.to_string() })?;
    write(stream, &bytes).await
}

fn lost(error: impl ToString) -> ClusterError {
    ClusterError::Protocol { reason: format!("connection lost: {}", error.to_string()) }
}
