//! Options of TCP as scripts write them, and their bytes.

/// One option.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Choice {
    /// `nop`.
    Nop,
    /// `eol`.
    End,
    /// `mss 1460`.
    Mss(u16),
    /// `wscale 7`.
    Scale(u8),
    /// `sackOK`.
    SackPermitted,
    /// `sack 1:2 3:4`.
    Sack(Vec<(u32, u32)>),
    /// `TS val 1 ecr 2`.
    Timestamps(u32, u32),
    /// `FO cookie`, `md5 digest` and any other: kind and bytes.
    Other(u8, Vec<u8>),
}

impl Choice {
    fn put(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Nop => bytes.push(1),
            Self::End => bytes.push(0),
            Self::Mss(mss) => bytes.extend([2, 4].into_iter().chain(mss.to_be_bytes())),
            Self::Scale(shift) => bytes.extend([3, 3, *shift]),
            Self::SackPermitted => bytes.extend([4, 2]),
            Self::Sack(blocks) => {
                bytes.extend([5, (2 + blocks.len() * 8) as u8]);
                for (left, right) in blocks {
                    bytes.extend(left.to_be_bytes().into_iter().chain(right.to_be_bytes()));
                }
            }
            Self::Timestamps(tsval, tsecr) => {
                bytes.extend([8, 10]);
                bytes.extend(tsval.to_be_bytes().into_iter().chain(tsecr.to_be_bytes()));
            }
            Self::Other(kind, data) => {
                bytes.extend([*kind, (2 + data.len()) as u8]);
                bytes.extend(data);
            }
        }
    }
}

/// Their bytes, filled up to whole words.
#[must_use]
pub fn encode(options: &[Choice]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for option in options {
        option.put(&mut bytes);
    }
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// What is in these bytes; what has no sense ends them.
#[must_use]
pub fn decode(mut bytes: &[u8]) -> Vec<Choice> {
    let mut found = Vec::new();
    while let [kind, rest @ ..] = bytes {
        if *kind < 2 {
            found.push(if *kind == 0 { Choice::End } else { Choice::Nop });
            bytes = rest;
            continue;
        }
        let Some(data) = rest.first().and_then(|len| bytes.get(2..usize::from(*len))) else { break };
        let word = |at: usize| u32::from_be_bytes([data[at], data[at + 1], data[at + 2], data[at + 3]]);
        found.push(match (kind, data.len()) {
            (2, 2) => Choice::Mss(u16::from_be_bytes([data[0], data[1]])),
            (3, 1) => Choice::Scale(data[0]),
            (4, 0) => Choice::SackPermitted,
            (5, len) if len % 8 == 0 => {
                Choice::Sack((0..len / 8).map(|block| (word(block * 8), word(block * 8 + 4))).collect())
            }
            (8, 8) => Choice::Timestamps(word(0), word(4)),
            _ => Choice::Other(*kind, data.to_vec()),
        });
        bytes = &bytes[2 + data.len()..];
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let all = vec![
            Choice::Mss(1460),
            Choice::SackPermitted,
            Choice::Timestamps(1, 2),
            Choice::Nop,
            Choice::Scale(7),
            Choice::Sack(vec![(1, 2), (3, 4)]),
            Choice::Other(34, vec![1, 2, 3, 4, 5, 6]),
            Choice::Nop,
            Choice::Nop,
        ];
        let bytes = encode(&all);
        assert_eq!(bytes.len() % 4, 0);
        assert_eq!(decode(&bytes), all);
    }
}
