//! Length-prefixed CBOR messages: `u32` little-endian length, then the body.

use std::io::ErrorKind;

use minicbor::{Decode, Encode};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::{Error, Result};

/// The largest body that the host accepts from a guest, in bytes.
pub const MAX_FROM_GUEST: usize = 64 * 1024;

/// The largest body that a guest accepts from the host, in bytes.
///
/// Linux's own limit for `argv` and the environment together is 2 MiB with the
/// default stack (`execve(2)`); this leaves room for the encoding.
pub const MAX_FROM_HOST: usize = 4 * 1024 * 1024;

/// Encodes a message with its length prefix.
pub fn encode<M: Encode<()>>(message: &M) -> Vec<u8> {
    let mut frame = vec![0; 4];
    // Writing to a Vec cannot fail: its error type is Infallible.
    let _ = minicbor::encode(message, &mut frame);
    let length = u32::try_from(frame.len() - 4).unwrap_or(u32::MAX);
    frame[..4].copy_from_slice(&length.to_le_bytes());
    frame
}

/// Decodes the body of one frame. Trailing bytes are a violation.
pub fn decode<'b, M: Decode<'b, ()>>(body: &'b [u8]) -> Result<M> {
    let mut decoder = minicbor::Decoder::new(body);
    let message = decoder.decode().map_err(Error::violation)?;
    if decoder.position() != body.len() {
        return Err(Error::violation("bytes after the end of a message"));
    }
    Ok(message)
}

/// Writes one message and flushes it.
pub async fn write<W, M>(writer: &mut W, message: &M) -> Result<()>
where
    W: AsyncWrite + Unpin,
    M: Encode<()>,
{
    writer.write_all(&encode(message)).await?;
    writer.flush().await?;
    Ok(())
}

/// Reads one message of at most `max` bytes; `None` when the stream ends before it.
///
/// Memory grows with the bytes that arrive, not with the length that the other
/// side claims.
pub async fn read<R, M>(reader: &mut R, max: usize) -> Result<Option<M>>
where
    R: AsyncRead + Unpin,
    M: for<'b> Decode<'b, ()>,
{
    let mut length = [0; 4];
    if reader.read(&mut length[..1]).await? == 0 {
        return Ok(None);
    }
    reader.read_exact(&mut length[1..]).await.map_err(cut)?;
    let length = u32::from_le_bytes(length) as usize;
    if length > max {
        return Err(Error::Violation(format!("a message of {length} bytes, {max} allowed")));
    }
    let mut body = Vec::new();
    reader.take(length as u64).read_to_end(&mut body).await?;
    if body.len() != length {
        return Err(cut(ErrorKind::UnexpectedEof.into()));
    }
    decode(&body).map(Some)
}

/// An end of the stream where a message should go on is the sender's fault.
fn cut(error: std::io::Error) -> Error {
    match error.kind() {
        ErrorKind::UnexpectedEof => Error::violation("the stream ended inside a message"),
        _ => Error::Io(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{ExecEvent, ExitStatus, Open};
    use proptest::prelude::*;

    fn block<F: Future>(future: F) -> F::Output {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
    }

    #[test]
    fn a_length_beyond_the_limit_is_refused_before_reading() {
        let mut wire = &u32::MAX.to_le_bytes()[..];
        let got = block(read::<_, ExecEvent>(&mut wire, MAX_FROM_GUEST));
        assert!(matches!(got, Err(Error::Violation(_))), "{got:?}");
    }

    #[test]
    fn a_cut_message_is_a_violation_and_a_clean_end_is_none() {
        let whole = encode(&ExecEvent::Exited(ExitStatus::Code(7), None));
        for end in 1..whole.len() {
            let got = block(read::<_, ExecEvent>(&mut &whole[..end], MAX_FROM_GUEST));
            assert!(matches!(got, Err(Error::Violation(_))), "{end}: {got:?}");
        }
        assert!(block(read::<_, ExecEvent>(&mut &b""[..], MAX_FROM_GUEST)).unwrap().is_none());
    }

    #[test]
    fn bytes_after_a_message_are_a_violation() {
        let mut body = encode(&ExecEvent::Exited(ExitStatus::Code(7), None))[4..].to_vec();
        body.push(0);
        assert!(matches!(decode::<ExecEvent>(&body), Err(Error::Violation(_))));
    }

    proptest! {
        #[test]
        fn any_bytes_decode_or_fail_without_panic(body in prop::collection::vec(any::<u8>(), 0..512)) {
            let _ = decode::<ExecEvent>(&body);
            let _ = decode::<crate::hello::GuestHello>(&body);
            let _ = decode::<crate::hello::Ready>(&body);
            let _ = decode::<crate::message::Connected>(&body);
        }

        #[test]
        fn messages_survive_the_wire(id in any::<u32>()) {
            let wire = encode(&Open::Stdout { exec: id });
            let got: Option<Open> = block(read(&mut &wire[..], MAX_FROM_HOST)).unwrap();
            prop_assert_eq!(got, Some(Open::Stdout { exec: id }));
        }
    }
}
