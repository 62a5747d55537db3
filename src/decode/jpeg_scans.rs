//! Whether the data of a JPEG's scans are all there (ITU T.81).
//!
//! A file that was cut and closed by an end marker, as proxies and cameras leave it, looks whole to decoders: they
//! fill up what is missing. So the Huffman codes of every scan are walked once, without making numbers of them, and
//! must cover every block of the scan before its next marker.

/// What the headers say that decides how a file is decoded.
use super::Check;

#[derive(Debug, Default)]
pub(super) struct Survey {
    /// Of the frame, in its order.
    components: Vec<Component>,
    pub(super) is_progressive: bool,
    /// Whether all components of a sequential frame are in one scan.
    pub(super) is_interleaved: bool,
    /// Width and height.
    pub(super) size: [usize; 2],
    has_jfif: bool,
    /// Where Adobe's segment begins, if it says that colours are stored as they are.
    adobe_of_rgb: Option<usize>,
}

#[derive(Clone, Debug)]
struct Component {
    id: u8,
    /// Blocks of an MCU along x and y.
    factors: [usize; 2],
    /// Blocks of a row of the frame, of all MCUs.
    blocks_x: usize,
    /// A bit for every coefficient that is not zero yet, by block; of progressive frames.
    nonzero: Vec<u64>,
    /// Of each coefficient the bits that are still to come, or `NONE` before its first scan.
    missing: [u8; 64],
}

const NONE: u8 = u8::MAX;

impl Survey {
    /// Of the frame.
    pub(super) fn components(&self) -> usize {
        self.components.len()
    }

    /// Where Adobe's segment begins whose word does not count: JFIF says that three components are brightness and
    /// colours, and libjpeg takes its word.
    pub(super) fn overruled(&self) -> Option<usize> {
        self.adobe_of_rgb
            .filter(|_| self.has_jfif && self.components.len() == 3)
    }

    /// Whether no component has more samples than the first, and all have a 1st, 2nd or 4th of its.
    pub(super) fn is_common(&self) -> bool {
        let most = self.most();
        let is_power = |c: &Component| c.factors.iter().all(|factor| factor.is_power_of_two());
        self.components.first().is_none_or(|c| c.factors == most)
            && self.components.iter().all(is_power)
    }

    /// The largest factors along x and y.
    fn most(&self) -> [usize; 2] {
        [0, 1].map(|axis| {
            let factors = self.components.iter().map(|c| c.factors[axis]);
            factors.max().unwrap_or(1)
        })
    }

    fn frame(&mut self, data: &[u8], is_progressive: bool, check: Check<'_>) -> Result<(), String> {
        let &[precision, h1, h0, w1, w0, count, ref rest @ ..] = data else {
            return Err("its frame header is cut short".into());
        };
        if !self.components.is_empty() {
            return Err("it has two frames".into());
        }
        if precision != 8 {
            return Err(format!("it has {precision} bits a sample; 8 are read"));
        }
        let [height, width] = [[h1, h0], [w1, w0]].map(|n| usize::from(u16::from_be_bytes(n)));
        if width == 0 || height == 0 {
            return Err(format!("it has {width} x {height} pixels"));
        }
        if !matches!(count, 1 | 3 | 4) || rest.len() < 3 * usize::from(count) {
            let message = "it has {} components; pictures have 1, 3 or 4";
            return Err(message.replace("{}", &count.to_string()));
        }
        for component in rest.chunks_exact(3).take(count.into()) {
            let factors = [component[1] >> 4, component[1] & 15].map(usize::from);
            if factors.iter().any(|factor| !(1..=4).contains(factor)) {
                return Err("it has a sampling factor that is not 1 to 4".into());
            }
            self.components.push(Component {
                id: component[0],
                factors,
                blocks_x: 0,
                nonzero: Vec::new(),
                missing: [NONE; 64],
            });
        }
        // A progressive frame's coefficients are kept until its last scan.
        check([width, height], if is_progressive { 9 } else { 3 })?;
        self.size = [width, height];
        self.is_progressive = is_progressive;
        let most = self.most();
        let mcus = [0, 1].map(|axis| self.size[axis].div_ceil(8 * most[axis]));
        for component in &mut self.components {
            let [x, y] = component.factors;
            component.blocks_x = mcus[0] * x;
            if is_progressive {
                component.nonzero = vec![0; component.blocks_x * mcus[1] * y];
            }
        }
        Ok(())
    }
}

/// Most scans: encoders write 10 or so. Small files could have many of large frames otherwise, and take minutes.
const MOST_SCANS: usize = 100;

/// Walks all segments and scans of a JPEG. `check` is asked for so many bytes a pixel of its width and height before memory
/// is allocated.
///
/// # Errors
/// What is missing or damaged, in words, and what `check` said. Frames that are not coded by Huffman (arithmetic, lossless) are
/// refused by name.
pub(super) fn survey(bytes: &[u8], check: Check<'_>) -> Result<Survey, String> {
    let mut survey = Survey {
        is_interleaved: true,
        ..Survey::default()
    };
    let mut tables = Tables::default();
    let mut at = 2;
    let mut scans = 0;
    loop {
        let marker = next_marker(bytes, &mut at).ok_or("it was cut short")?;
        match marker {
            0x01 | 0xd0..=0xd8 => continue,
            0xd9 => break,
            _ => {}
        }
        let data = segment(bytes, &mut at)?;
        match marker {
            0xc0 | 0xc1 => survey.frame(data, false, check)?,
            0xc2 => survey.frame(data, true, check)?,
            0xc3 | 0xc5..=0xc7 | 0xc9..=0xcb | 0xcd..=0xcf => {
                return Err(
                    "it is lossless, hierarchical or arithmetically coded, which is not read"
                        .into(),
                );
            }
            0xc4 => tables.huffman(data)?,
            0xdd => match *data {
                [high, low] => tables.restart = usize::from(u16::from_be_bytes([high, low])),
                _ => return Err("its restart interval is damaged".into()),
            },
            0xe0 if data.starts_with(b"JFIF\0") => survey.has_jfif = true,
            0xee if data.starts_with(b"Adobe") && data.get(11) == Some(&0) => {
                // Before the data lie the marker and the length.
                survey.adobe_of_rgb = Some(at - data.len() - 4);
            }
            0xda => {
                let scan = Scan::of(&survey, data)?;
                scans += 1;
                if scans > MOST_SCANS {
                    return Err(format!("it has more than {MOST_SCANS} scans"));
                }
                if !survey.is_progressive && scan.parts.len() < survey.components.len() {
                    survey.is_interleaved = false;
                }
                let walked = scan.walk(&mut survey, &tables, &bytes[at..]);
                at += walked.map_err(|e| format!("scan {scans}: {e}"))?;
            }
            _ => {}
        }
    }
    // A progressive file that was cut between two scans would be read coarsely.
    let is_whole = |c: &Component| c.missing.iter().all(|&bits| bits == 0);
    match survey.components.iter().all(is_whole) && scans > 0 {
        true => Ok(survey),
        false => Err("it ends before the scans of all its coefficients: it was cut short".into()),
    }
}

/// The next marker from `at` on, which is moved behind it. Bytes between segments are passed over.
fn next_marker(bytes: &[u8], at: &mut usize) -> Option<u8> {
    loop {
        let rest = bytes.get(*at..)?;
        let found = rest.iter().position(|&byte| byte == 0xff)?;
        *at += found + 1;
        while bytes.get(*at) == Some(&0xff) {
            *at += 1;
        }
        let &marker = bytes.get(*at)?;
        *at += 1;
        if marker != 0 {
            return Some(marker);
        }
    }
}

fn segment<'a>(bytes: &'a [u8], at: &mut usize) -> Result<&'a [u8], String> {
    let length = bytes.get(*at..*at + 2).ok_or("it was cut short")?;
    let length = usize::from(u16::from_be_bytes([length[0], length[1]]));
    let data = bytes.get(*at + 2..*at + length.max(2));
    *at += length.max(2);
    data.ok_or_else(|| "it was cut short".into())
}

#[derive(Default)]
struct Tables {
    dc: [Option<Huffman>; 4],
    ac: [Option<Huffman>; 4],
    /// MCUs between restarts, or 0.
    restart: usize,
}

impl Tables {
    fn huffman(&mut self, mut data: &[u8]) -> Result<(), String> {
        let damaged = || "a table of codes is damaged".to_string();
        while let Some((&which, rest)) = data.split_first() {
            let counts = rest.get(..16).ok_or_else(damaged)?;
            let len = counts.iter().map(|&n| usize::from(n)).sum::<usize>();
            let symbols = rest.get(16..16 + len).ok_or_else(damaged)?;
            let tables = match which >> 4 {
                0 => &mut self.dc,
                1 => &mut self.ac,
                _ => return Err(damaged()),
            };
            let table = tables
                .get_mut(usize::from(which & 15))
                .ok_or_else(damaged)?;
            *table = Some(Huffman::new(counts, symbols).ok_or_else(damaged)?);
            data = &rest[16 + len..];
        }
        Ok(())
    }
}

/// Bits that codes are looked up by.
const LOOKUP: u32 = 9;

struct Huffman {
    /// Length and symbol of the code that begins with these bits; length 0 if it is longer.
    lookup: Vec<(u8, u8)>,
    /// By length from 1 on: one more than the last code, shifted to 16 bits; and the index of its first symbol minus its first
    /// code.
    ends: [(u32, i32); 16],
    symbols: Vec<u8>,
}

impl Huffman {
    fn new(counts: &[u8], symbols: &[u8]) -> Option<Self> {
        let mut lookup = vec![(0, 0); 1 << LOOKUP];
        let mut ends = [(0, 0); 16];
        let (mut code, mut first) = (0_u32, 0_usize);
        for (i, &count) in counts.iter().enumerate() {
            let length = i as u32 + 1;
            let count = usize::from(count);
            if code + count as u32 > 1 << length {
                return None;
            }
            ends[i].1 = first as i32 - code as i32;
            for &symbol in &symbols[first..first + count] {
                if length <= LOOKUP {
                    let from = (code << (LOOKUP - length)) as usize;
                    lookup[from..from + (1 << (LOOKUP - length))].fill((length as u8, symbol));
                }
                code += 1;
            }
            first += count;
            ends[i].0 = if count == 0 { 0 } else { code << (16 - length) };
            code <<= 1;
        }
        Some(Self {
            lookup,
            ends,
            symbols: symbols.to_vec(),
        })
    }
}

/// Why a scan cannot be walked to its end.
enum Stop {
    /// No bits are left before the next marker.
    Short,
    Damaged,
}

/// Bits of a scan up to the next marker.
struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
    /// The next bits, from the highest on.
    buffer: u64,
    count: u32,
}

impl Bits<'_> {
    fn fill(&mut self) {
        while self.count <= 56 {
            let byte = match self.bytes.get(self.at..) {
                Some([0xff, 0x00, ..]) => {
                    self.at += 2;
                    0xff
                }
                Some([0xff, ..] | []) | None => return,
                Some([byte, ..]) => {
                    self.at += 1;
                    *byte
                }
            };
            self.buffer |= u64::from(byte) << (56 - self.count);
            self.count += 8;
        }
    }

    fn skip(&mut self, bits: u32) -> Result<(), Stop> {
        if self.count < bits {
            self.fill();
            if self.count < bits {
                return Err(Stop::Short);
            }
        }
        self.buffer <<= bits;
        self.count -= bits;
        Ok(())
    }

    fn take(&mut self, bits: u32) -> Result<u32, Stop> {
        if bits == 0 {
            return Ok(0);
        }
        if self.count < bits {
            self.fill();
        }
        let value = (self.buffer >> (64 - bits)) as u32;
        self.skip(bits)?;
        Ok(value)
    }

    fn symbol(&mut self, table: &Huffman) -> Result<u8, Stop> {
        if self.count < 16 {
            self.fill();
        }
        let (length, symbol) = table.lookup[(self.buffer >> (64 - LOOKUP)) as usize];
        if length > 0 {
            self.skip(length.into())?;
            return Ok(symbol);
        }
        let sixteen = (self.buffer >> 48) as u32;
        let found = table
            .ends
            .iter()
            .enumerate()
            .find(|(_, end)| sixteen < end.0);
        let Some((i, &(_, offset))) = found else {
            return Err(if self.count < 16 {
                Stop::Short
            } else {
                Stop::Damaged
            });
        };
        let length = i as u32 + 1;
        self.skip(length)?;
        let at = (sixteen >> (16 - length)) as i32 + offset;
        let symbol = usize::try_from(at)
            .ok()
            .and_then(|at| table.symbols.get(at));
        symbol.copied().ok_or(Stop::Damaged)
    }

    /// How many coefficients that are zero come first, and how many bits the next one has.
    fn zeros_and_length(&mut self, ac: &Huffman) -> Result<(usize, u32), Stop> {
        let symbol = self.symbol(ac)?;
        Ok((usize::from(symbol >> 4), u32::from(symbol & 15)))
    }

    /// Passes the restart marker that must come next, after the bits that fill up the last byte.
    fn restart(&mut self) -> Result<(), Stop> {
        self.buffer = 0;
        // Whole bytes that were taken ahead stand before the marker: there must be none.
        if self.count >= 8 {
            return Err(Stop::Damaged);
        }
        self.count = 0;
        while self.bytes.get(self.at..self.at + 2) == Some(&[0xff, 0xff]) {
            self.at += 1;
        }
        match self.bytes.get(self.at..) {
            Some([0xff, 0xd0..=0xd7, ..]) => {
                self.at += 2;
                Ok(())
            }
            _ => Err(Stop::Short),
        }
    }
}

/// A component in a scan: its place in the frame, and which tables it takes.
struct Part {
    component: usize,
    dc: usize,
    ac: usize,
}

struct Scan {
    parts: Vec<Part>,
    /// First and last coefficient.
    band: [usize; 2],
    /// Whether it makes coefficients of earlier scans more exact.
    refines: bool,
    /// Bits of its coefficients that later scans bring.
    low_bit: u8,
}

impl Scan {
    fn of(survey: &Survey, data: &[u8]) -> Result<Self, String> {
        let damaged = || "the header of a scan is damaged".to_string();
        let (&count, rest) = data.split_first().ok_or_else(damaged)?;
        let count = usize::from(count);
        let (listed, &[first, last, bits]) = (
            rest.get(..2 * count).ok_or_else(damaged)?,
            rest.get(2 * count..2 * count + 3)
                .and_then(|three| <&[u8; 3]>::try_from(three).ok())
                .ok_or_else(damaged)?,
        );
        let mut parts = Vec::new();
        for pair in listed.chunks_exact(2) {
            let component = survey.components.iter().position(|c| c.id == pair[0]);
            parts.push(Part {
                component: component.ok_or_else(damaged)?,
                dc: usize::from(pair[1] >> 4),
                ac: usize::from(pair[1] & 15),
            });
        }
        let band = match survey.is_progressive {
            true => [usize::from(first), usize::from(last)],
            false => [0, 63],
        };
        let is_possible = band[0] <= band[1]
            && band[1] < 64
            && (!survey.is_progressive || (band[0] == 0) == (band[1] == 0))
            && (band[0] == 0 || parts.len() == 1);
        if parts.is_empty() || !is_possible {
            return Err(damaged());
        }
        Ok(Self {
            parts,
            band,
            refines: survey.is_progressive && bits >> 4 != 0,
            low_bit: if survey.is_progressive { bits & 15 } else { 0 },
        })
    }

    /// Walks the scan's data at the beginning of `bytes`: how many bytes they are.
    fn walk(&self, survey: &mut Survey, tables: &Tables, bytes: &[u8]) -> Result<usize, String> {
        let most = survey.most();
        let mcus = match &self.parts[..] {
            // Alone in a scan, a component has the blocks that its samples need, one by one.
            [one] => {
                let factors = survey.components[one.component].factors;
                [0, 1].map(|i| (survey.size[i] * factors[i]).div_ceil(8 * most[i]))
            }
            _ => [0, 1].map(|i| survey.size[i].div_ceil(8 * most[i])),
        };
        let is_alone = self.parts.len() == 1;
        let mut bits = Bits {
            bytes,
            at: 0,
            buffer: 0,
            count: 0,
        };
        let mut run = 0;
        let all = mcus[0] * mcus[1];
        for mcu in 0..all {
            let [x, y] = [mcu % mcus[0], mcu / mcus[0]];
            let mut walk = || {
                if tables.restart > 0 && mcu > 0 && mcu % tables.restart == 0 {
                    bits.restart()?;
                    run = 0;
                }
                for part in &self.parts {
                    let component = &mut survey.components[part.component];
                    let [columns, rows] = if is_alone { [1, 1] } else { component.factors };
                    for block in 0..columns * rows {
                        let at = (y * rows + block / columns) * component.blocks_x
                            + x * columns
                            + block % columns;
                        let (dc, ac) = (tables.dc.get(part.dc), tables.ac.get(part.ac));
                        let dc = dc.and_then(Option::as_ref);
                        let ac = ac.and_then(Option::as_ref);
                        self.block(&mut bits, dc, ac, &mut run, component.nonzero.get_mut(at))?;
                    }
                }
                Ok(())
            };
            walk().map_err(|stop| match stop {
                Stop::Short => format!("its data end after {mcu} of {all} parts: it was cut short"),
                Stop::Damaged => format!("its data are damaged at part {mcu} of {all}"),
            })?;
        }
        for part in &self.parts {
            let [first, last] = self.band;
            survey.components[part.component].missing[first..=last].fill(self.low_bit);
        }
        // What was taken ahead is behind `at`: the next marker is not.
        Ok(bits.at)
    }

    fn block(
        &self,
        bits: &mut Bits<'_>,
        dc: Option<&Huffman>,
        ac: Option<&Huffman>,
        run: &mut u32,
        nonzero: Option<&mut u64>,
    ) -> Result<(), Stop> {
        let [first, last] = self.band;
        if first == 0 {
            if self.refines {
                bits.skip(1)?;
            } else {
                let length = bits.symbol(dc.ok_or(Stop::Damaged)?)?;
                if length > 16 {
                    return Err(Stop::Damaged);
                }
                bits.skip(length.into())?;
            }
            if last == 0 {
                return Ok(());
            }
            return sequential(bits, ac.ok_or(Stop::Damaged)?);
        }
        let (ac, nonzero) = (ac.ok_or(Stop::Damaged)?, nonzero.ok_or(Stop::Damaged)?);
        match self.refines {
            false => first_of_band(bits, ac, [first, last], run, nonzero),
            true => refine_band(bits, ac, [first, last], run, nonzero),
        }
    }
}

/// Coefficients 1 to 63.
fn sequential(bits: &mut Bits<'_>, ac: &Huffman) -> Result<(), Stop> {
    let mut k = 1;
    while k < 64 {
        let (zeros, length) = bits.zeros_and_length(ac)?;
        match (zeros, length) {
            (15, 0) => k += 16,
            (_, 0) => return Ok(()),
            _ => {
                bits.skip(length)?;
                k += zeros + 1;
            }
        }
    }
    match k {
        64 => Ok(()),
        _ => Err(Stop::Damaged),
    }
}

fn first_of_band(
    bits: &mut Bits<'_>,
    ac: &Huffman,
    [first, last]: [usize; 2],
    run: &mut u32,
    nonzero: &mut u64,
) -> Result<(), Stop> {
    if *run > 0 {
        *run -= 1;
        return Ok(());
    }
    let mut k = first;
    while k <= last {
        let (zeros, length) = bits.zeros_and_length(ac)?;
        match (zeros, length) {
            (15, 0) => k += 16,
            (zeros, 0) => {
                *run = (1 << zeros) - 1 + bits.take(zeros as u32)?;
                return Ok(());
            }
            _ => {
                k += zeros;
                if k > last {
                    return Err(Stop::Damaged);
                }
                *nonzero |= 1 << k;
                bits.skip(length)?;
                k += 1;
            }
        }
    }
    Ok(())
}

fn refine_band(
    bits: &mut Bits<'_>,
    ac: &Huffman,
    [first, last]: [usize; 2],
    run: &mut u32,
    nonzero: &mut u64,
) -> Result<(), Stop> {
    let mut k = first;
    while *run == 0 && k <= last {
        let (mut zeros, length) = bits.zeros_and_length(ac)?;
        if length == 0 && zeros < 15 {
            *run = (1 << zeros) + bits.take(zeros as u32)?;
            break;
        }
        if length > 0 {
            bits.skip(1)?;
        }
        // Every coefficient that is not zero has a bit; so many zeros are passed over.
        while k <= last {
            if *nonzero >> k & 1 == 1 {
                bits.skip(1)?;
            } else if zeros == 0 {
                break;
            } else {
                zeros -= 1;
            }
            k += 1;
        }
        if length > 0 && k <= last {
            *nonzero |= 1 << k;
        }
        k += 1;
    }
    if *run > 0 {
        let rest = (first..=last).skip(k - first);
        for _ in rest.filter(|k| *nonzero >> k & 1 == 1) {
            bits.skip(1)?;
        }
        *run -= 1;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Any number of 0xff may stand before a marker.
    #[test]
    fn a_restart_is_found_behind_bytes_that_fill() {
        let restart = |bytes: &[u8], count| {
            let mut bits = Bits {
                bytes,
                at: 0,
                buffer: 1,
                count,
            };
            bits.restart()
                .ok()
                .map(|()| (bits.at, bits.buffer, bits.count))
        };
        for (bytes, count, wanted) in [
            (&b"\xff\xd0a"[..], 0, Some(2)),
            (b"\xff\xff\xd7", 7, Some(3)),
            (b"\xff\xff\xff\xff\xd3", 1, Some(5)),
            (b"\xff\xd8", 0, None),
            (b"\xff\xff", 0, None),
            (b"a\xff\xd0", 0, None),
            // A byte of data is left.
            (b"\xff\xd0", 8, None),
        ] {
            let wanted = wanted.map(|at| (at, 0, 0));
            assert_eq!(restart(bytes, count), wanted, "{bytes:x?} {count}");
        }
    }

    /// Progressive scans of one component each are the usual thing, and no reason for another decoder.
    #[test]
    fn scans_of_their_own_are_those_of_sequential_files() {
        let survey = |bytes: &[u8]| survey(bytes, &mut |_, _| Ok(())).unwrap();
        let progressive = survey(include_bytes!("../../tests/data/progressive.jpg"));
        assert!(progressive.is_progressive && progressive.components() == 3);
        let alone: Vec<usize> = progressive
            .components
            .iter()
            .map(|c| c.missing.len())
            .collect();
        assert!(progressive.is_interleaved, "{alone:?}");
        let cmyk = survey(include_bytes!("../../tests/data/cmyk.jpg"));
        assert!(!cmyk.is_progressive && cmyk.is_interleaved);
    }

    /// Adobe's word is its last byte, whatever its flags: 0 is colours as they are, 1 brightness and colours.
    #[test]
    fn jfif_overrules_adobe_in_colour_alone() {
        use image::{DynamicImage, ImageFormat};
        let grey = DynamicImage::new_luma8(9, 7);
        let colour = DynamicImage::new_rgb8(9, 7);
        for (image, has_jfif, flags, transform, is_overruled) in [
            (&colour, true, [0; 4], 0, true),
            (&colour, true, [1, 2, 3, 4], 0, true),
            (&colour, true, [0; 4], 1, false),
            (&colour, false, [0; 4], 0, false),
            (&grey, true, [0; 4], 0, false),
        ] {
            let mut file = std::io::Cursor::new(Vec::new());
            image.write_to(&mut file, ImageFormat::Jpeg).unwrap();
            let mut bytes = file.into_inner();
            assert_eq!(bytes[2..11], *b"\xff\xe0\0\x10JFIF\0");
            if !has_jfif {
                bytes[6] = b'X';
            }
            let adobe = [&b"\xff\xee\0\x0eAdobe\0\x64"[..], &flags, &[transform]].concat();
            bytes.splice(20..20, adobe);
            let survey = survey(&bytes, &mut |size, each| {
                assert_eq!((size, each), ([9, 7], 3));
                Ok(())
            });
            let found = survey.unwrap().overruled();
            let case = format!("{has_jfif} {flags:?} {transform}");
            assert_eq!(found, is_overruled.then_some(20), "{case}");
        }
    }

    /// Codes of one bit are two at most; with one of these taken, those of two bits are two more.
    #[test]
    fn a_table_of_more_codes_than_there_are_is_refused() {
        let is_table = |counts: [u8; 2]| {
            let symbols = vec![0; counts.iter().map(|&n| usize::from(n)).sum()];
            Huffman::new(&counts, &symbols).is_some()
        };
        assert!(is_table([2, 0]) && is_table([1, 2]) && is_table([0, 4]));
        assert!(!is_table([3, 0]) && !is_table([1, 3]) && !is_table([0, 5]));
    }

    #[test]
    fn bits_are_taken_from_the_bytes_that_follow() {
        let mut bits = Bits {
            bytes: b"\xa5\x5a",
            at: 0,
            buffer: 0,
            count: 0,
        };
        let taken = [4, 0, 8, 4, 1].map(|n| bits.take(n).ok());
        assert_eq!(taken, [Some(0xa), Some(0), Some(0x55), Some(0xa), None]);
    }
}
