use super::*;
use crate::Version;
use proptest::prelude::*;

/// A two-track index with known bytes: the golden file keeps old indexes readable.
fn sample() -> TitleIndex {
    let facts = |id: &str, kind, codec: &str, timescale, bytes| Facts {
        id: id.parse().unwrap(),
        kind,
        codec: codec.into(),
        language: None,
        label: None,
        timescale,
        file_bytes: bytes,
        init: ByteRange::new(0, 700),
        sidx: ByteRange::new(700, 68),
        media_start: 768,
        first_decode_time: 0,
        presentation_offset: 0,
        duration: u64::from(timescale) * 8,
    };
    let video =
        Kind::Video { width: 640, height: 360, frame_rate: (25, 1), range: VideoRange::Sdr };
    let segment = |start, duration, offset, bytes| Segment {
        start,
        duration,
        range: ByteRange::new(offset, bytes),
    };
    TitleIndex {
        segment_target_ms: 4000,
        tracks: vec![
            Track {
                facts: facts("v1", video, "avc1.64001e", 12800, 1_500_000),
                segments: vec![
                    segment(0, 51200, 768, 700_000),
                    segment(51200, 51200, 700_768, 799_232),
                ],
                digests: vec![[1; 32], [2; 32]],
            },
            Track {
                facts: Facts {
                    init: ByteRange::default(),
                    sidx: ByteRange::default(),
                    language: Some("en".into()),
                    ..facts("s-en", Kind::Text, "wvtt", 1000, 400)
                },
                segments: vec![],
                digests: vec![[3; 32]],
            },
        ],
    }
}

#[test]
fn the_golden_index_stays_readable_and_is_still_written_the_same() {
    let golden = include_bytes!("golden-1.index");
    assert_eq!(TitleIndex::decode(golden), Ok(sample()));
    assert_eq!(sample().encode(), golden);
    assert_eq!(
        Version::of_index(golden).to_string(),
        Version::of_index(&sample().encode()).to_string()
    );
}

#[test]
fn a_section_for_later_readers_is_skipped_and_a_vital_one_refused() {
    let mut bytes = sample().encode();
    bytes.extend(b"xtra\x03\0\0\0abc");
    assert_eq!(TitleIndex::decode(&bytes), Ok(sample()));
    let mut bytes = sample().encode();
    bytes.extend(b"Xtra\x03\0\0\0abc");
    assert!(matches!(TitleIndex::decode(&bytes), Err(IndexError::TooNew(_))));
}

#[test]
fn every_cut_is_refused() {
    let bytes = sample().encode();
    for length in 0..bytes.len() {
        assert!(TitleIndex::decode(&bytes[..length]).is_err(), "cut at {length} was taken");
    }
}

#[test]
fn rates_and_lengths() {
    let index = sample();
    let video = &index.tracks[0];
    assert_eq!(video.peak_bandwidth(), 799_232 * 8 / 4);
    assert_eq!(video.average_bandwidth(), 1_499_232);
    assert_eq!(index.duration_ms(), 8000);
    assert_eq!(index.tracks[1].file_name(), "s-en.vtt");
}

proptest! {
    #[test]
    fn no_bytes_make_decoding_panic(at in 0usize..700, value: u8) {
        let mut bytes = sample().encode();
        let at = at % bytes.len();
        bytes[at] = value;
        if let Ok(index) = TitleIndex::decode(&bytes) {
            let fits = |t: &Track| t.segments.iter().all(|s| s.range.fits(t.facts.file_bytes));
            prop_assert!(index.tracks.iter().all(fits), "a segment past the end");
        }
    }
}
