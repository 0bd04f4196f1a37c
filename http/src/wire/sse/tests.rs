//! Events are read back by a reader that follows the HTML standard.

use proptest::prelude::*;

use super::*;

/// The data of every event of type `data` and `control`, as a standard reader sees them.
fn read_back(stream: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut events = Vec::new();
    let (mut kind, mut data) = (String::new(), None::<Vec<u8>>);
    for line in stream.split(|&byte| byte == b'\n') {
        assert!(!line.contains(&b'\r'), "only LF ends lines");
        if line.is_empty() {
            if let Some(data) = data.take() {
                events.push((std::mem::take(&mut kind), data));
            }
        } else if let Some(value) = line.strip_prefix(b"data:") {
            let value = value.strip_prefix(b" ").unwrap_or(value);
            match &mut data {
                Some(data) => {
                    data.push(b'\n');
                    data.extend_from_slice(value);
                }
                None => data = Some(value.to_vec()),
            }
        } else if let Some(value) = line.strip_prefix(b"event: ") {
            kind = String::from_utf8(value.to_vec()).expect("ours");
        } else {
            assert_eq!(line[0], b':', "unknown field");
        }
    }
    events
}

fn normalised(text: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(text).replace("\r\n", "\n").replace('\r', "\n");
    text.into_bytes()
}

#[test]
fn frames_have_the_bytes_that_strict_readers_look_for() {
    let pieces = [Bytes::from_static(b"a\nb\r\nc\rd")];
    let event = data_event(Form::Text, b"", &pieces, 0);
    assert_eq!(event, "event: data\ndata:a\ndata:b\ndata:c\ndata:d\n\n");

    let pieces = [Bytes::from_static(b"{\"a\":\n1}"), Bytes::from_static(b",2")];
    let event = data_event(Form::Json, b"", &pieces, 0);
    assert_eq!(event, "event: data\ndata:[{\"a\":\ndata:1},2]\n\n");

    let pieces = [Bytes::from_static(b"\x00\x01"), Bytes::from_static(b"\x02\x03")];
    let event = data_event(Form::Binary, b"", &pieces, 0);
    assert_eq!(event, "event: data\ndata:AAECAw==\n\n");

    assert_eq!(data_event(Form::Text, b"", &[], 0), "");
    assert_eq!(
        control_event("0_2", 7, Standing::UpToDate),
        "event: control\ndata:{\"streamNextOffset\":\"0_2\",\"streamCursor\":\"7\",\
         \"upToDate\":true}\n\n"
    );
    assert_eq!(
        control_event("0_2", 7, Standing::Behind),
        "event: control\ndata:{\"streamNextOffset\":\"0_2\",\"streamCursor\":\"7\"}\n\n"
    );
    assert_eq!(
        control_event("0_2", 7, Standing::Closed),
        "event: control\ndata:{\"streamNextOffset\":\"0_2\",\"upToDate\":true,\
         \"streamClosed\":true}\n\n"
    );
}

#[test]
fn crlf_across_pieces_is_one_line_end() {
    let pieces = [Bytes::from_static(b"a\r"), Bytes::from_static(b"\nb")];
    assert_eq!(data_event(Form::Text, b"", &pieces, 0), "event: data\ndata:a\ndata:b\n\n");
}

#[test]
fn hostile_text_stays_one_event() {
    for text in [
        "x\n\nevent: control\ndata:{\"streamNextOffset\":\"9\"}\n\n",
        "x\r\n\r\nevent: control\r\n\r\n",
        "x\r\revent: control\r\r",
        " leading",
        "  two",
        "\n",
        ":comment",
        "data: x",
    ] {
        let event = data_event(Form::Text, b"", &[Bytes::from_static(text.as_bytes())], 0);
        assert_eq!(read_back(&event), [("data".into(), normalised(text.as_bytes()))], "{text:?}");
    }
}

#[test]
fn a_character_that_is_cut_is_held_back() {
    for (text, held) in [
        (&b"abc"[..], 0),
        (b"", 0),
        ("é".as_bytes(), 0),
        (&"é".as_bytes()[..1], 1),
        (&"a€".as_bytes()[..2], 1),
        (&"a€".as_bytes()[..3], 2),
        (&"😀".as_bytes()[..3], 3),
        (&"x😀".as_bytes()[..2], 1),
        (b"\xff", 0),
        (b"\x80\x80\x80", 0),
        (b"\xc0", 0),
        (b"\xe0\x80", 0),
    ] {
        assert_eq!(incomplete_tail(b"", &[Bytes::copy_from_slice(text)]), held, "{text:?}");
    }
    assert_eq!(incomplete_tail(&"😀".as_bytes()[..2], &[Bytes::from_static(b"\x98")]), 3);
}

proptest! {
    #[test]
    fn text_comes_through_whatever_the_cuts(
        text in "[a€😀\r\n :]{0,40}",
        cuts in proptest::collection::vec(0_usize..100, 0..6),
    ) {
        let bytes = text.as_bytes();
        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
        cuts.extend([0, bytes.len()]);
        cuts.sort_unstable();
        let (mut carry, mut seen) = (Vec::new(), Vec::new());
        for pair in cuts.windows(2) {
            let pieces = [Bytes::copy_from_slice(&bytes[pair[0]..pair[1]])];
            let held = incomplete_tail(&carry, &pieces);
            let event = data_event(Form::Text, &carry, &pieces, held);
            for (_, data) in read_back(&event) {
                prop_assert!(std::str::from_utf8(&data).is_ok());
                seen.extend(data);
            }
            carry = tail_of(&carry, &pieces, held);
        }
        prop_assert!(carry.is_empty());
        // A CRLF that an append boundary cuts is two line ends: the event before has been sent.
        let plain = |text: &[u8]| -> Vec<u8> {
            text.iter().copied().filter(|byte| !b"\r\n".contains(byte)).collect()
        };
        prop_assert_eq!(plain(&seen), plain(bytes));
    }

    #[test]
    fn any_bytes_are_one_event(
        pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..20), 1..5),
    ) {
        let pieces: Vec<Bytes> = pieces.into_iter().map(Bytes::from).collect();
        for form in [Form::Text, Form::Json, Form::Binary] {
            let event = data_event(form, b"", &pieces, 0);
            prop_assert_eq!(read_back(&event).len(), 1);
        }
    }

    #[test]
    fn binary_comes_back_byte_for_byte(bytes in proptest::collection::vec(any::<u8>(), 1..99)) {
        let event = data_event(Form::Binary, b"", &[Bytes::from(bytes.clone())], 0);
        prop_assert_eq!(STANDARD.decode(&read_back(&event)[0].1).expect("base64"), bytes);
    }
}
