//! Huffman's code of HPACK and QPACK (RFC 7541 appendix B), as far as names and values of fields
//! are printable ASCII, which is nearly always.
//!
//! Invariant: what it reads is what the whole code means by it; the rest it leaves to others.

/// The codes of a length: that of the first symbol, and the symbols of it and of those after it.
struct Codes {
    bits: u32,
    first: u32,
    symbols: &'static [u8],
}

const fn codes(bits: u32, first: u32, symbols: &'static [u8]) -> Codes {
    Codes { bits, first, symbols }
}

/// By length. Codes that are left out mean what is not printable, or nothing.
const CODES: [Codes; 11] = [
    codes(5, 0x0, b"012aceiost"),
    codes(6, 0x14, b" %-./3456789=A_bdfghlmnpru"),
    codes(7, 0x5c, b":BCDEFGHIJKLMNOPQRSTUVWYjkqvwxyz"),
    codes(8, 0xf8, b"&*,;XZ"),
    codes(10, 0x3f8, b"!\"()?"),
    codes(11, 0x7fa, b"'+|"),
    codes(12, 0xffa, b"#>"),
    codes(13, 0x1ff9, b"$@[]~"),
    codes(14, 0x3ffc, b"^}"),
    codes(15, 0x7ffc, b"<`{"),
    codes(19, 0x7fff0, b"\\"),
];
/// Lengths that one look at a byte tells.
const SHORT: usize = 4;
/// The shortest code, and the longest one.
const BITS_MIN: usize = 5;
const BITS_MAX: u32 = 19;

/// For each byte that bits begin with, the symbol and its bits; none where the code is longer.
const BY_BYTE: [(u8, u8); 256] = {
    let mut table = [(0, 0); 256];
    let mut length = 0;
    while length < SHORT {
        let Codes { bits, first, symbols } = CODES[length];
        let mut at = 0;
        while at < symbols.len() {
            let spare = 8 - bits;
            let from = ((first as usize) + at) << spare;
            let mut tail = 0;
            while tail < 1 << spare {
                table[from + tail] = (symbols[at], bits as u8);
                tail += 1;
            }
            at += 1;
        }
        length += 1;
    }
    table
};

/// What a string stands for; none when it has anything but printable ASCII, or is not whole.
pub fn text(coded: &[u8]) -> Option<Vec<u8>> {
    let mut text = Vec::with_capacity(coded.len() * 8 / BITS_MIN);
    let (mut held, mut bits) = (0_u64, 0_u32);
    let mut rest = coded.iter();
    loop {
        while bits <= 56 {
            let Some(byte) = rest.next() else { break };
            held |= u64::from(*byte) << (56 - bits);
            bits += 8;
        }
        let (symbol, used) = symbol(held);
        if used == 0 || used > bits {
            break;
        }
        text.push(symbol);
        held <<= used;
        bits -= used;
    }
    // Less than a byte, of ones (RFC 7541 section 5.2).
    (bits < 8 && held == !(u64::MAX >> bits)).then_some(text)
}

/// The symbol that these bits begin with, and how many it takes; none when that is 0.
fn symbol(held: u64) -> (u8, u32) {
    let (symbol, bits) = BY_BYTE[usize::from(held.to_be_bytes()[0])];
    if bits > 0 {
        return (symbol, bits.into());
    }
    let head = u32::try_from(held >> (64 - BITS_MAX)).unwrap_or(u32::MAX);
    for Codes { bits, first, symbols } in &CODES[SHORT..] {
        let place = (head >> (BITS_MAX - bits)).wrapping_sub(*first);
        if let Some(symbol) = symbols.get(place as usize) {
            return (*symbol, *bits);
        }
    }
    (0, 0)
}

#[cfg(test)]
#[path = "../../tests/quic/huffman.rs"]
mod whole;

#[cfg(test)]
mod tests {
    use super::whole::huffman;
    use super::*;
    use proptest::prelude::*;

    fn bytes(hex: &str) -> Vec<u8> {
        let digits = hex.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).unwrap());
        digits.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect()
    }

    /// The examples of RFC 7541 appendix C.
    #[test]
    fn strings_of_the_standard() {
        for (hex, expected) in [
            ("f1e3c2e5f23a6ba0ab90f4ff", "www.example.com"),
            ("a8eb10649cbf", "no-cache"),
            ("25a849e95ba97d7f", "custom-key"),
            ("25a849e95bb8e8b4bf", "custom-value"),
            ("6402", "302"),
            ("aec3771a4b", "private"),
            ("d07abe941054d444a8200595040b8166e082a62d1bff", "Mon, 21 Oct 2013 20:13:21 GMT"),
            ("9d29ad171863c78f0b97c8e9ae82ae43d3", "https://www.example.com"),
            ("9bd9ab", "gzip"),
            (
                "94e7821dd7f2e6c7b335dfdfcd5b3960d5af27087f3672c1ab270fb5291f9587316065c003ed4ee5b1063d5007",
                "foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1",
            ),
        ] {
            assert_eq!(text(&bytes(hex)).unwrap(), expected.as_bytes(), "{expected}");
        }
    }

    /// Every printable symbol, before and after every other one.
    #[test]
    fn all_that_is_printable() {
        let printable: Vec<u8> = (b' '..=b'~').collect();
        assert_eq!(CODES.iter().map(|codes| codes.symbols.len()).sum::<usize>(), printable.len());
        for first in &printable {
            for second in &printable {
                let expected = [*first, *second, *first];
                assert_eq!(text(&huffman(&expected)).unwrap(), expected);
            }
        }
        assert_eq!(text(&huffman(&printable)).unwrap(), printable);
        assert_eq!(text(&[]).unwrap(), b"");
    }

    #[test]
    fn what_is_not_whole_or_not_printable_is_left() {
        // Padding of zeros; of a whole byte; a symbol cut short; NUL; the end of all strings.
        for coded in [&[0x00][..], &[0x07, 0xff], &[0xfe], &[0xff, 0xc7], &[0xff; 4], &[0xff; 8]] {
            assert_eq!(text(coded), None, "{coded:02x?}");
        }
    }

    proptest! {
        /// By the whole code, which knows more symbols.
        #[test]
        fn texts_come_back(text in prop::collection::vec(b' '..=b'~', 0..100)) {
            prop_assert_eq!(super::text(&huffman(&text)), Some(text));
        }

        #[test]
        fn texts_that_are_not_printable_are_left(
            text in prop::collection::vec(prop_oneof![9 => b' '..=b'~', 1 => any::<u8>()], 0..30),
        ) {
            let printable = text.iter().all(|byte| matches!(byte, b' '..=b'~'));
            prop_assert_eq!(super::text(&huffman(&text)), printable.then_some(text));
        }

        /// No two strings mean the same.
        #[test]
        fn what_is_read_is_what_was_written(coded in prop::collection::vec(any::<u8>(), 0..12)) {
            if let Some(read) = text(&coded) {
                prop_assert_eq!(huffman(&read), coded);
            }
        }
    }
}
