//! Numbers and times in a caller's bytes.

use super::IPPROTO_IP;
use crate::error::Error;
use crate::settings::Values;

/// Timeouts beyond this many seconds are none (MAX_SCHEDULE_TIMEOUT at a thousand ticks a second).
const TIMEOUT_MAX_S: i64 = i64::MAX / 1000 - 1;

/// A number from a caller's bytes: of IPv4's options one byte is enough.
pub(crate) fn number(level: i32, bytes: &[u8]) -> Result<i32, Error> {
    match (bytes.first_chunk(), level) {
        (Some(number), _) => Ok(i32::from_ne_bytes(*number)),
        (None, IPPROTO_IP) => Ok(bytes.first().map_or(0, |byte| i32::from(*byte))),
        (None, _) => Err(Error::Invalid),
    }
}

/// Copies as much as the caller has room for.
pub(crate) fn put(bytes: &[u8], to: &mut [u8]) -> usize {
    let len = bytes.len().min(to.len());
    to[..len].copy_from_slice(&bytes[..len]);
    len
}

/// A number to a caller's bytes.
pub(crate) fn put_number(level: i32, number: i32, to: &mut [u8]) -> usize {
    match u8::try_from(number) {
        Ok(byte) if level == IPPROTO_IP && to.len() < 4 => put(&[byte], to),
        _ => put(&number.to_ne_bytes(), to),
    }
}

/// A `struct timeval` as microseconds; 0 is without limit.
pub(crate) fn microseconds(bytes: &[u8]) -> Result<u64, Error> {
    let (Some(seconds), Some(micros)) =
        (bytes.first_chunk(), bytes.get(8..).and_then(|rest| rest.first_chunk()))
    else {
        return Err(Error::Invalid);
    };
    let (seconds, micros) = (i64::from_ne_bytes(*seconds), i64::from_ne_bytes(*micros));
    if !(0..1_000_000).contains(&micros) {
        return Err(Error::OutOfDomain);
    }
    // What is over already is the shortest that there is.
    Ok(match seconds {
        ..0 => 1,
        TIMEOUT_MAX_S.. => 0,
        _ => (seconds as u64).saturating_mul(1_000_000).saturating_add(micros as u64),
    })
}

pub(crate) fn timeval(micros: u64) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&(micros / 1_000_000).to_ne_bytes());
    bytes[8..].copy_from_slice(&(micros % 1_000_000).to_ne_bytes());
    bytes
}

/// A bit of [`Values::options`].
pub(crate) fn switched(values: &mut Values, bit: u32, on: bool) {
    values.options = if on { values.options | bit } else { values.options & !bit };
}
