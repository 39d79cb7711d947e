use super::*;
use LogStream::{Stderr, Stdout};

const T: u64 = 1_800_000_000_000_000_000;

type Message<'a> = (u64, LogStream, &'a [u8]);

fn feed(assembler: &mut Assembler, messages: &[Message]) -> Vec<Piece> {
    let mut pieces = Vec::new();
    for (at, stream, bytes) in messages {
        let part = Part { stream: *stream, first: true, last: true, bytes: bytes.to_vec() };
        assembler.take(&part, Some(T + at), 0, bytes, &mut |piece| pieces.push(piece));
    }
    pieces
}

fn shown(pieces: &[Piece]) -> Vec<String> {
    let mark = |piece: &Piece| if piece.continues { "…" } else { "" };
    pieces.iter().map(|piece| format!("{}: {}{}", piece.stream, piece.text, mark(piece))).collect()
}

/// All of it, with the end of the run.
fn whole(messages: &[Message]) -> Vec<Piece> {
    let mut assembler = Assembler::new(false, None);
    let mut pieces = feed(&mut assembler, messages);
    assembler.end_run(&mut |piece| pieces.push(piece));
    pieces
}

#[test]
fn characters_stay_whole_and_streams_apart() {
    let pieces = whole(&[(1, Stdout, b"\xf0\x9f"), (1, Stderr, b"err\n"), (1, Stdout, b"\x9a\x80\n")]);
    assert_eq!(shown(&pieces), ["stderr: err", "stdout: \u{1f680}"]);
    let pieces = whole(&[(1, Stdout, b"before-\xff\xfe-after\nnext\n"), (2, Stdout, b"\xed\xab\xee\xdb\x03\x00\n")]);
    let marks = "\u{fffd}".repeat(4);
    let last = format!("stdout: {marks}\u{3}\u{0}");
    assert_eq!(shown(&pieces), ["stdout: before-\u{fffd}\u{fffd}-after", "stdout: next", last.as_str()]);
}

#[test]
fn a_long_line_comes_in_pieces_that_make_it_up_again() {
    let text = "aé🚀".repeat(10_000);
    let mut messages: Vec<Message> = text.as_bytes().chunks(CUT).map(|bytes| (1, Stdout, bytes)).collect();
    messages.insert(2, (9, Stderr, b"between\n"));
    messages.push((1, Stdout, b"\n"));
    let pieces = whole(&messages);
    let of_line: Vec<&Piece> = pieces.iter().filter(|piece| piece.stream == Stdout).collect();
    assert_eq!(of_line.iter().map(|piece| piece.text.as_str()).collect::<String>(), text);
    assert!(of_line.iter().rev().skip(1).all(|piece| piece.continues) && !of_line.last().unwrap().continues);
    assert!(pieces.is_sorted_by(|one, next| one.cursor < next.cursor));
}

/// Whoever goes on after any line gets the rest, neither more nor less, if the engine tells only what is as late as the
/// cursor says, or all, if nothing new is.
fn check_resuming(messages: &[Message]) {
    let all = whole(messages);
    assert!(all.is_sorted_by(|one, next| one.cursor < next.cursor), "{all:?}");
    for (index, given) in all.iter().enumerate() {
        let cursor = LogCursor::parse(&given.cursor.to_string()).unwrap();
        let from = cursor.time - cursor.back;
        let from = if messages.last().is_some_and(|(at, ..)| T + at < from) { 0 } else { from };
        let told: Vec<Message> = messages.iter().filter(|(at, ..)| T + at >= from).copied().collect();
        let mut assembler = Assembler::new(false, Some(cursor));
        let mut rest = feed(&mut assembler, &told);
        assembler.end_run(&mut |piece| rest.push(piece));
        rest.retain(|piece| piece.cursor > cursor);
        assert_eq!(shown(&rest), shown(&all[index + 1..]), "after {index} of {messages:?}");
    }
}

#[test]
fn reading_goes_on_after_any_line() {
    let second = 1_000_000_000;
    check_resuming(&[(1, Stdout, b"a\n"), (1, Stdout, b"b\n"), (1, Stderr, b"c\n"), (1, Stdout, b"d\n")]);
    // One stream overtakes the other, and both have several lines with one time.
    check_resuming(&[
        (5, Stdout, b"a\n"),
        (3, Stderr, b"b\n"),
        (5, Stdout, b"c\n"),
        (4, Stderr, b"d\n"),
        (6, Stdout, b"e\n"),
    ]);
    // A long line that began long ago, with lines of the other stream in between.
    let long = [b'x'; CUT];
    check_resuming(&[
        (1, Stdout, &long),
        (90 * second, Stderr, b"a\n"),
        (1, Stdout, &long),
        (91 * second, Stderr, b"b\n"),
        (1, Stdout, b"\xf0\x9f"),
        (92 * second, Stderr, b"c\n"),
        (1, Stdout, b"\x9a\x80 end\n"),
        (93 * second, Stdout, b"next\n"),
    ]);
    // The clock is set back.
    check_resuming(&[(90 * second, Stdout, b"a\n"), (second, Stdout, b"b\n"), (2 * second, Stdout, b"c\n")]);
    // Runs that ended in the middle of a line.
    check_resuming(&[(1, Stdout, b"no end"), (9 * second, Stdout, b"next\n"), (9 * second, Stderr, b"> ")]);
    check_resuming(&[(1, Stdout, b"no end"), (2, Stderr, b"e\n"), (9 * second, Stdout, b"next\nmore\n")]);
}

#[test]
fn what_was_given_as_a_piece_is_not_given_again_when_its_line_ends() {
    let mut assembler = Assembler::new(false, None);
    let mut pieces = feed(&mut assembler, &[(1, Stdout, b"no end")]);
    assembler.flush(&mut |piece| pieces.push(piece));
    assert_eq!(shown(&pieces), ["stdout: no end…"]);
    let cursor = pieces.first().unwrap().cursor;
    let mut again = Assembler::new(false, Some(cursor));
    let mut rest = feed(&mut again, &[(1, Stdout, b"no end")]);
    again.end_run(&mut |piece| rest.push(piece));
    assert_eq!(shown(&rest), ["stdout: "]);
    assert!(rest.first().unwrap().cursor > cursor);
}

#[test]
fn a_terminal_ends_lines_in_its_own_way() {
    let mut assembler = Assembler::new(true, None);
    let mut pieces =
        feed(&mut assembler, &[(1, Stdout, b"one\r\n"), (2, Stdout, b"10 %\r20 %\r30 %\r\n"), (3, Stdout, b"x\r")]);
    pieces.extend(feed(&mut assembler, &[(3, Stdout, b"\n"), (4, Stdout, b"$ ")]));
    assembler.end_run(&mut |piece| pieces.push(piece));
    assert_eq!(shown(&pieces), ["stdout: one", "stdout: 10 %\r20 %\r30 %", "stdout: x…", "stdout: ", "stdout: $ "]);
}

#[test]
fn marks_stand_between_the_lines_of_two_runs() {
    let mut assembler = Assembler::new(false, None);
    let mut pieces = feed(&mut assembler, &[(1, Stdout, b"a\n")]);
    pieces.push(assembler.mark(None, T + 5, "again".to_owned()));
    pieces.push(assembler.mark(None, T + 6, "again".to_owned()));
    pieces.extend(feed(&mut assembler, &[(7, Stdout, b"b\n")]));
    assert!(pieces.is_sorted_by(|one, next| one.cursor < next.cursor), "{pieces:?}");
}
