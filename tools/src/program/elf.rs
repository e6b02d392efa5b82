//! As much of ELF as tells whether a program can be interposed (elf(5), gabi chapters 4 and 5).
//!
//! The file is anybody's: every offset and count is checked, sizes are bounded, and nothing is believed.

use std::fs::File;
use std::os::unix::fs::FileExt;

/// Something that can be read at an offset.
pub(crate) trait Source {
    /// Exactly `length` bytes at `offset`, or `None`.
    fn at(&self, offset: u64, length: usize) -> Option<Vec<u8>>;
}

impl Source for [u8] {
    fn at(&self, offset: u64, length: usize) -> Option<Vec<u8>> {
        let start = usize::try_from(offset).ok()?;
        self.get(start..start.checked_add(length)?).map(<[u8]>::to_vec)
    }
}

impl Source for File {
    fn at(&self, offset: u64, length: usize) -> Option<Vec<u8>> {
        let mut bytes = vec![0; length];
        self.read_exact_at(&mut bytes, offset).ok()?;
        Some(bytes)
    }
}

/// What the headers say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Elf {
    /// 64-bit (ELFCLASS64). The fields below `machine` are filled for these only.
    pub is_64_bit: bool,
    /// Little-endian (ELFDATA2LSB).
    pub is_little_endian: bool,
    /// `e_machine`.
    pub machine: u16,
    /// The loader that the program asks for (PT_INTERP); static programs ask for none.
    pub interpreter: Option<String>,
    /// ET_DYN: may be loaded anywhere.
    pub is_relocatable: bool,
    /// It has a DT_SONAME: a shared library or the loader itself rather than a program.
    pub has_soname: bool,
    /// It has a Go build note or a `.go.buildinfo` section.
    pub is_go: bool,
}

/// Why the bytes are not an ELF program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The magic number is missing.
    NotElf,
    /// It begins as ELF and then makes no sense.
    Broken(&'static str),
}

const ET_EXEC: u16 = 2;
const ET_DYN: u16 = 3;
const PT_DYNAMIC: u32 = 2;
const PT_INTERP: u32 = 3;
const PT_NOTE: u32 = 4;
const DT_NULL: u64 = 0;
const DT_SONAME: u64 = 14;
const NT_GO_BUILD_ID: u32 = 4;

const HEADER_LENGTH: usize = 64;
const PROGRAM_HEADER_LENGTH: usize = 56;
const SECTION_HEADER_LENGTH: usize = 64;
const HEADERS_MAX: usize = 4096;
const ENTRY_MAX: usize = 256;
const INTERPRETER_MAX: u64 = 4096;
const PART_MAX: u64 = 1 << 20;

/// Reads the headers.
pub(crate) fn inspect<S: Source + ?Sized>(source: &S) -> Result<Elf, Fault> {
    // 20 bytes hold e_ident, e_type and e_machine in every class.
    let start = source.at(0, 20).ok_or(Fault::NotElf)?;
    if start[..4] != *b"\x7fELF" {
        return Err(Fault::NotElf);
    }
    let is_64_bit = match start[4] {
        1 => false,
        2 => true,
        _ => return Err(Fault::Broken("its class is neither 32-bit nor 64-bit")),
    };
    let is_little_endian = match start[5] {
        1 => true,
        2 => false,
        _ => return Err(Fault::Broken("its byte order is neither little-endian nor big-endian")),
    };
    let machine = [start[18], start[19]];
    let machine = if is_little_endian { u16::from_le_bytes(machine) } else { u16::from_be_bytes(machine) };
    let mut elf = Elf { is_64_bit, is_little_endian, machine, ..Elf::default() };
    if !is_64_bit || !is_little_endian {
        return Ok(elf);
    }
    let header = source.at(0, HEADER_LENGTH).ok_or(Fault::Broken("its header is cut off"))?;
    elf.is_relocatable = match u16_at(&header, 16) {
        ET_EXEC => false,
        ET_DYN => true,
        _ => return Err(Fault::Broken("it is an object or a core file, not a program")),
    };
    read_segments(source, &header, &mut elf)?;
    elf.is_go |= has_go_section(source, &header).unwrap_or(false);
    Ok(elf)
}

fn read_segments<S: Source + ?Sized>(source: &S, header: &[u8], elf: &mut Elf) -> Result<(), Fault> {
    let (offset, size, count) =
        (u64_at(header, 32), usize::from(u16_at(header, 54)), usize::from(u16_at(header, 56)));
    if count == 0 || count > HEADERS_MAX || !(PROGRAM_HEADER_LENGTH..=ENTRY_MAX).contains(&size) {
        return Err(Fault::Broken("its program headers have an impossible size or number"));
    }
    let table = source.at(offset, size * count).ok_or(Fault::Broken("its program headers are cut off"))?;
    for entry in table.chunks_exact(size) {
        let (offset, length) = (u64_at(entry, 8), u64_at(entry, 32));
        match u32_at(entry, 0) {
            PT_INTERP => {
                let path = part(source, offset, length, INTERPRETER_MAX)
                    .ok_or(Fault::Broken("the name of its loader is cut off"))?;
                let path = path.split(|&byte| byte == 0).next().unwrap_or_default();
                elf.interpreter = Some(String::from_utf8_lossy(path).into_owned());
            }
            PT_NOTE => {
                elf.is_go |= part(source, offset, length, PART_MAX).is_some_and(|notes| has_go_note(&notes));
            }
            PT_DYNAMIC => {
                elf.has_soname = part(source, offset, length, PART_MAX).is_some_and(|table| {
                    table
                        .chunks_exact(16)
                        .map(|entry| u64_at(entry, 0))
                        .take_while(|&tag| tag != DT_NULL)
                        .any(|tag| tag == DT_SONAME)
                });
            }
            _ => {}
        }
    }
    Ok(())
}

/// A note is three words (name length, descriptor length, type), name and descriptor, each padded to 4.
fn has_go_note(mut notes: &[u8]) -> bool {
    while notes.len() >= 12 {
        let (name, descriptor) = (u32_at(notes, 0) as usize, u32_at(notes, 4) as usize);
        let kind = u32_at(notes, 8);
        notes = &notes[12..];
        if kind == NT_GO_BUILD_ID && name == 4 && notes.starts_with(b"Go\0\0") {
            return true;
        }
        let skip = name.saturating_add(3) / 4 * 4 + descriptor.saturating_add(3) / 4 * 4;
        match notes.get(skip..) {
            Some(rest) => notes = rest,
            None => return false,
        }
    }
    false
}

fn has_go_section<S: Source + ?Sized>(source: &S, header: &[u8]) -> Option<bool> {
    let (offset, size) = (u64_at(header, 40), usize::from(u16_at(header, 58)));
    let (count, names) = (usize::from(u16_at(header, 60)), usize::from(u16_at(header, 62)));
    if count == 0 || count > HEADERS_MAX || !(SECTION_HEADER_LENGTH..=ENTRY_MAX).contains(&size) {
        return None;
    }
    let table = source.at(offset, size * count)?;
    let section = |index: usize| table.get(index * size..(index + 1) * size);
    let strings = section(names)?;
    let strings = part(source, u64_at(strings, 24), u64_at(strings, 32), PART_MAX)?;
    Some((0..count).filter_map(section).any(|entry| {
        let name = strings.get(u32_at(entry, 0) as usize..).unwrap_or_default();
        let name = name.split(|&byte| byte == 0).next().unwrap_or_default();
        matches!(name, b".note.go.buildid" | b".go.buildinfo")
    }))
}

fn part<S: Source + ?Sized>(source: &S, offset: u64, length: u64, length_max: u64) -> Option<Vec<u8>> {
    if length > length_max {
        return None;
    }
    source.at(offset, usize::try_from(length).ok()?)
}

fn u16_at(bytes: &[u8], offset: usize) -> u16 {
    array(bytes, offset).map_or(0, u16::from_le_bytes)
}

fn u32_at(bytes: &[u8], offset: usize) -> u32 {
    array(bytes, offset).map_or(0, u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], offset: usize) -> u64 {
    array(bytes, offset).map_or(0, u64::from_le_bytes)
}

fn array<const N: usize>(bytes: &[u8], offset: usize) -> Option<[u8; N]> {
    bytes.get(offset..offset.checked_add(N)?)?.try_into().ok()
}

/// The name of a machine, as people write it.
pub(crate) fn machine_name(machine: u16) -> &'static str {
    match machine {
        3 => "i386",
        8 => "MIPS",
        20 | 21 => "PowerPC",
        22 => "S/390",
        40 => "ARM",
        62 => "x86-64",
        183 => "AArch64",
        243 => "RISC-V",
        258 => "LoongArch",
        _ => "another machine",
    }
}

/// The machine for which accel was built.
pub(crate) const OWN_MACHINE: u16 = if cfg!(target_arch = "aarch64") { 183 } else { 62 };

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A small ELF file with the given segments (type, contents) and section names.
    pub(crate) fn synthetic(
        kind: u16,
        machine: u16,
        segments: &[(u32, &[u8])],
        sections: &[&str],
    ) -> Vec<u8> {
        let mut file = vec![0; HEADER_LENGTH];
        file[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
        file[16..18].copy_from_slice(&kind.to_le_bytes());
        file[18..20].copy_from_slice(&machine.to_le_bytes());
        file[32..40].copy_from_slice(&(HEADER_LENGTH as u64).to_le_bytes());
        file[54..56].copy_from_slice(&(PROGRAM_HEADER_LENGTH as u16).to_le_bytes());
        file[56..58].copy_from_slice(&(segments.len() as u16).to_le_bytes());
        let mut contents = HEADER_LENGTH + segments.len() * PROGRAM_HEADER_LENGTH;
        for (kind, bytes) in segments {
            let mut entry = [0; PROGRAM_HEADER_LENGTH];
            entry[..4].copy_from_slice(&kind.to_le_bytes());
            entry[8..16].copy_from_slice(&(contents as u64).to_le_bytes());
            entry[32..40].copy_from_slice(&(bytes.len() as u64).to_le_bytes());
            file.extend(entry);
            contents += bytes.len();
        }
        for (_, bytes) in segments {
            file.extend(*bytes);
        }
        if !sections.is_empty() {
            let mut names = vec![0];
            let mut table = Vec::new();
            for name in sections {
                let mut entry = [0; SECTION_HEADER_LENGTH];
                entry[..4].copy_from_slice(&(names.len() as u32).to_le_bytes());
                names.extend(name.bytes().chain([0]));
                table.extend(entry);
            }
            let mut entry = [0; SECTION_HEADER_LENGTH];
            entry[24..32].copy_from_slice(&(file.len() as u64).to_le_bytes());
            entry[32..40].copy_from_slice(&(names.len() as u64).to_le_bytes());
            table.extend(entry);
            file.extend(names);
            let offset = file.len() as u64;
            file[40..48].copy_from_slice(&offset.to_le_bytes());
            file[58..60].copy_from_slice(&(SECTION_HEADER_LENGTH as u16).to_le_bytes());
            file[60..62].copy_from_slice(&(sections.len() as u16 + 1).to_le_bytes());
            file[62..64].copy_from_slice(&(sections.len() as u16).to_le_bytes());
            file.extend(table);
        }
        file
    }

    const LOADER: &[u8] = b"/lib64/ld-linux-x86-64.so.2\0";
    const GO_NOTE: &[u8] = b"\x04\0\0\0\x03\0\0\0\x04\0\0\0Go\0\0abc\0";

    #[test]
    fn the_loader_of_a_dynamic_program_is_read() {
        let elf = inspect(synthetic(ET_DYN, 62, &[(1, b""), (PT_INTERP, LOADER)], &[]).as_slice()).unwrap();
        assert_eq!(elf.interpreter.as_deref(), Some("/lib64/ld-linux-x86-64.so.2"));
        assert!(elf.is_relocatable && elf.is_64_bit && elf.is_little_endian && !elf.is_go);
        assert_eq!(elf.machine, 62);
    }

    #[test]
    fn static_programs_have_no_loader() {
        let plain = inspect(synthetic(ET_EXEC, 62, &[(1, b"code")], &[]).as_slice()).unwrap();
        assert_eq!((plain.interpreter, plain.is_relocatable), (None, false));
        let pie = inspect(synthetic(ET_DYN, 62, &[(PT_DYNAMIC, &[0; 16])], &[]).as_slice()).unwrap();
        assert_eq!((pie.interpreter, pie.is_relocatable, pie.has_soname), (None, true, false));
    }

    #[test]
    fn a_soname_marks_a_library() {
        let mut table = vec![0; 48];
        table[0] = 1;
        table[16] = DT_SONAME as u8;
        let elf = inspect(synthetic(ET_DYN, 62, &[(PT_DYNAMIC, &table)], &[]).as_slice()).unwrap();
        assert!(elf.has_soname);
        table[0] = 0;
        let elf = inspect(synthetic(ET_DYN, 62, &[(PT_DYNAMIC, &table)], &[]).as_slice()).unwrap();
        assert!(!elf.has_soname, "the table ends at DT_NULL");
    }

    #[test]
    fn go_is_known_by_its_note_behind_others_or_by_its_sections() {
        let mut notes = b"\x04\0\0\0\x05\0\0\0\x03\0\0\0GNU\0abcde\0\0\0".to_vec();
        notes.extend(GO_NOTE);
        let is_go = |segments: &[(u32, &[u8])], sections: &[&str]| {
            inspect(synthetic(ET_EXEC, 62, segments, sections).as_slice()).unwrap().is_go
        };
        assert!(is_go(&[(PT_NOTE, &notes)], &[]));
        assert!(is_go(&[(1, b"")], &[".text", ".go.buildinfo"]));
        assert!(is_go(&[(1, b"")], &[".note.go.buildid"]));
        assert!(!is_go(&[(PT_NOTE, &notes[..20])], &[".text", ".go"]));
    }

    #[test]
    fn other_classes_and_byte_orders_are_named_and_not_read_further() {
        let mut file = synthetic(ET_EXEC, 3, &[], &[]);
        file[4] = 1;
        let elf = inspect(&file[..20]).unwrap();
        assert_eq!((elf.is_64_bit, elf.machine), (false, 3));
        let mut file = synthetic(ET_EXEC, 0, &[], &[]);
        file[5] = 2;
        file[19] = 22;
        let elf = inspect(file.as_slice()).unwrap();
        assert_eq!((elf.is_little_endian, elf.machine), (false, 22));
    }

    #[test]
    fn impossible_headers_are_refused() {
        assert_eq!(inspect(b"#!/bin/sh\necho hello world".as_slice()), Err(Fault::NotElf));
        assert_eq!(inspect(b"\x7fELF".as_slice()), Err(Fault::NotElf));
        let good = synthetic(ET_EXEC, 62, &[(PT_INTERP, LOADER)], &[]);
        let broken = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut file = good.clone();
            change(&mut file);
            matches!(inspect(file.as_slice()), Err(Fault::Broken(_)))
        };
        assert!(broken(&|file| file[4] = 9));
        assert!(broken(&|file| file[5] = 9));
        assert!(broken(&|file| file[16] = 1), "an object file");
        assert!(broken(&|file| file[56..58].fill(0)), "no segments");
        assert!(broken(&|file| file[56..58].fill(0xff)), "too many segments");
        assert!(broken(&|file| file[54] = 8), "segments that are too small");
        assert!(broken(&|file| file[32..40].fill(0xff)), "segments beyond the end of the file");
        assert!(broken(&|file| file[64 + 32..64 + 40].fill(0xff)), "a loader's name without end");
        assert!(broken(&|file| file.truncate(70)));
    }

    #[test]
    fn no_damage_to_any_byte_makes_the_parser_panic() {
        let good = synthetic(
            ET_DYN,
            62,
            &[(PT_INTERP, LOADER), (PT_NOTE, GO_NOTE), (PT_DYNAMIC, &[0; 32])],
            &[".text", ".go.buildinfo"],
        );
        for index in 0..good.len() {
            for value in [0, 1, 0x7f, 0x80, 0xff] {
                let mut file = good.clone();
                file[index] = value;
                let _ = inspect(file.as_slice());
            }
            let _ = inspect(&good[..index]);
        }
    }
}
