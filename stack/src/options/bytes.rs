//! Numbers and times in a caller's bytes.

use super::IPPROTO_IP;
use crate::error::Error;
use crate::ip::path_mtu::V6_MIN;
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

/// Bytes of a `struct ip6_mtuinfo`: an address, which is for what a control message tells, and the number behind it.
const MTU_INFO_LEN: usize = 32;

/// IPV6_PATHMTU, of a path that takes so many bytes; `None` if nobody knows one.
///
/// # Errors
/// `Invalid` without room for all of it; `NotConnected`.
pub(crate) fn put_mtu_info(mtu: Option<u16>, to: &mut [u8]) -> Result<usize, Error> {
    if to.len() < MTU_INFO_LEN {
        return Err(Error::Invalid);
    }
    let mut bytes = [0; MTU_INFO_LEN];
    bytes[28..].copy_from_slice(&u32::from(mtu.ok_or(Error::NotConnected)?).to_ne_bytes());
    Ok(put(&bytes, to))
}

/// IPV6_MTU is none, or what every link carries at least (RFC 8200 §5).
pub(crate) fn mtu_max(value: i32) -> Result<u16, Error> {
    let is_one = value == 0 || value >= i32::from(V6_MIN);
    if is_one { Ok(u16::try_from(value).unwrap_or(u16::MAX)) } else { Err(Error::Invalid) }
}

/// A bit of [`Values::options`].
pub(crate) fn switched(values: &mut Values, bit: u32, on: bool) {
    values.options = if on { values.options | bit } else { values.options & !bit };
}
