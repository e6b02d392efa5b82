//! Enumerations that records keep as numbers.

/// Makes an enumeration of rows with their numbers: the type, all of its values, and the way back from a record's number. What is no
/// row's number, which only bytes that nobody wrote can be, is read as the value that is named behind `else`.
macro_rules! coded {
    (
        $(#[$about:meta])*
        $vis:vis enum $name:ident: $word:ident else $bad:ident {
            $($(#[$row:meta])* $variant:ident = $number:literal,)+
        }
    ) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr($word)]
        $vis enum $name {
            $($(#[$row])* $variant = $number,)+
        }

        impl $name {
            /// Every one, in the order of the rows.
            $vis const ALL: [Self; [$($number),+].len()] = [$(Self::$variant),+];

            /// The one that a record's number stands for.
            #[inline]
            #[must_use]
            $vis const fn decode(number: $word) -> Self {
                match number {
                    $($number => Self::$variant,)+
                    _ => Self::$bad,
                }
            }
        }
    };
}

pub(crate) use coded;

#[cfg(test)]
mod tests {
    coded! {
        /// Three of them.
        enum Place: u8 else Lost {
            /// First.
            Here = 0,
            /// Not next.
            There = 7,
            /// Nowhere.
            Lost = 9,
        }
    }

    #[test]
    fn numbers_lead_back_and_all_others_to_what_is_named() {
        for number in u8::MIN..=u8::MAX {
            let place = Place::ALL.into_iter().find(|place| *place as u8 == number);
            assert_eq!(Place::decode(number), place.unwrap_or(Place::Lost));
        }
    }
}
