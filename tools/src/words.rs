//! Words that are nearly right, and names that match a pattern.

/// The candidate that a mistyped word most likely meant, if one is near enough.
pub(crate) fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_ascii_lowercase();
    let limit = (word.chars().count() / 3).clamp(1, 3);
    candidates
        .into_iter()
        .map(|candidate| (distance(&word, &candidate.to_ascii_lowercase()), candidate))
        .filter(|&(distance, _)| distance <= limit)
        .min_by_key(|&(distance, _)| distance)
        .map(|(_, candidate)| candidate)
}

/// ` (did you mean "x"?)`, or nothing.
pub(crate) fn did_you_mean<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> String {
    nearest(word, candidates).map_or_else(String::new, |near| format!(" (did you mean `{near}`?)"))
}

/// Fewest insertions, deletions, replacements and swaps of neighbours that turn one word into the other.
fn distance(left: &str, right: &str) -> usize {
    let left: Vec<char> = left.chars().collect();
    let right: Vec<char> = right.chars().collect();
    let width = right.len() + 1;
    let mut table: Vec<usize> = vec![0; (left.len() + 1) * width];
    for row in 0..=left.len() {
        for column in 0..width {
            table[row * width + column] = if row == 0 {
                column
            } else if column == 0 {
                row
            } else {
                let same = left[row - 1] == right[column - 1];
                let above = (row - 1) * width + column;
                let mut best = (table[above] + 1)
                    .min(table[row * width + column - 1] + 1)
                    .min(table[above - 1] + usize::from(!same));
                let swapped = row > 1
                    && column > 1
                    && left[row - 1] == right[column - 2]
                    && left[row - 2] == right[column - 1];
                if swapped {
                    best = best.min(table[(row - 2) * width + column - 2] + 1);
                }
                best
            };
        }
    }
    table[left.len() * width + right.len()]
}

/// Whether the name matches the pattern, in which `*` stands for any run of characters.
pub(crate) fn matches(pattern: &str, name: &str) -> bool {
    let (pattern, name) = (pattern.as_bytes(), name.as_bytes());
    let (mut at, mut star, mut from) = (0, None, 0);
    let mut index = 0;
    while index < name.len() {
        if at < pattern.len() && pattern[at] == b'*' {
            star = Some(at);
            from = index;
            at += 1;
        } else if at < pattern.len() && pattern[at] == name[index] {
            at += 1;
            index += 1;
        } else if let Some(star) = star {
            from += 1;
            index = from;
            at = star + 1;
        } else {
            return false;
        }
    }
    pattern[at..].iter().all(|&byte| byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_finger_is_recognised_and_a_different_word_is_not() {
        let keys = ["spin", "spin_usec", "local_after"];
        assert_eq!(nearest("spin_used", keys), Some("spin_usec"));
        assert_eq!(nearest("sipn", keys), Some("spin"));
        assert_eq!(nearest("SPIN_USEC", keys), Some("spin_usec"));
        assert_eq!(nearest("bananas", keys), None);
    }

    #[test]
    fn stars_match_any_run() {
        for (pattern, name, expected) in [
            ("redis-server", "redis-server", true),
            ("redis-server", "redis-serve", false),
            ("redis-*", "redis-server", true),
            ("*", "", true),
            ("*server", "redis-server", true),
            ("r*s*r", "redis-server", true),
            ("r*x", "redis-server", false),
            ("python3*", "python3", true),
            ("", "a", false),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }
}
