use super::super::entry::make;
use super::*;

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_be_bytes()).collect()
}

fn table(kind: &[u8; 4], fields: &[u32]) -> Vec<u8> {
    make(*kind, &[&words(fields)])
}

fn read(boxes: &[Vec<u8>], file_bytes: u64) -> Result<Vec<Sample>, Fault> {
    let body = boxes.concat();
    let stbl = Box { kind: *b"stbl", body: &body, whole: &body };
    samples(stbl, &mut Budget::new(file_bytes))
}

/// Five samples in chunks of 2, 2 and 1.
fn plain() -> Vec<Vec<u8>> {
    vec![
        table(b"stsz", &[0, 0, 5, 10, 20, 30, 40, 50]),
        table(b"stts", &[0, 2, 4, 100, 1, 70]),
        table(b"ctts", &[0x0100_0000, 2, 1, 200, 4, (-100i32).cast_unsigned()]),
        table(b"stss", &[0, 2, 1, 4]),
        table(b"stsc", &[0, 2, 1, 2, 1, 3, 1, 1]),
        table(b"stco", &[0, 3, 1000, 2000, 3000]),
    ]
}

#[test]
fn tables_become_samples() {
    let samples = read(&plain(), 10_000).unwrap();
    let row = |s: &Sample| (s.offset, s.bytes, s.duration, s.shift, s.sync);
    let rows: Vec<_> = samples.iter().map(row).collect();
    assert_eq!(
        rows,
        [
            (1000, 10, 100, 200, true),
            (1010, 20, 100, -100, false),
            (2000, 30, 100, -100, false),
            (2030, 40, 100, -100, true),
            (3000, 50, 70, -100, false),
        ]
    );
}

#[test]
fn narrow_sizes_and_wide_offsets_are_read() {
    let sizes = |samples: Vec<Sample>| samples.iter().map(|s| s.bytes).collect::<Vec<_>>();
    for (width, packed) in [
        (4, vec![0x1234_5000]),
        (8, vec![0x0102_0304, 0x0500_0000]),
        (16, vec![0x1_0002, 0x3_0004, 0x5_0000]),
    ] {
        let mut boxes = plain();
        boxes[0] = table(b"stz2", &[&[0, width, 5], packed.as_slice()].concat());
        assert_eq!(sizes(read(&boxes, 10_000).unwrap()), [1, 2, 3, 4, 5], "{width}");
    }
    let mut boxes = plain();
    boxes[5] = table(b"co64", &[0, 3, 1, 0, 2, 0, 3, 0]);
    assert_eq!(read(&boxes, 1 << 40).unwrap()[2].offset, 2 << 32);
}

#[test]
fn tables_that_lie_are_refused_before_memory_is_taken() {
    let with = |n: usize, fields: &[u32], kind: &[u8; 4]| {
        let mut boxes = plain();
        boxes[n] = table(kind, fields);
        match read(&boxes, 10_000) {
            Err(Fault::Corrupt(what)) => what,
            other => panic!("{kind:?}: {other:?}"),
        }
    };
    let all = [
        with(0, &[0, 0, u32::MAX], b"stsz"),
        with(0, &[0, 1, u32::MAX], b"stsz"),
        with(0, &[0, 0, 5, 10, 0, 30, 40, 50], b"stsz"),
        with(1, &[0, 1, 3, 100], b"stts"),
        with(1, &[0, u32::MAX, 3, 100], b"stts"),
        with(1, &[0, 1, 5, u32::MAX], b"stts"),
        with(3, &[0, 1, 6], b"stss"),
        with(4, &[0, 0], b"stsc"),
        with(4, &[0, 1, 1, 2, 2], b"stsc"),
        with(4, &[0, 3, 1, 1, 1, 3, 1, 1, 2, 1, 1], b"stsc"),
        with(5, &[0, 2, 1000, 2000], b"stco"),
    ];
    insta::assert_snapshot!(all.join("\n"));
}
