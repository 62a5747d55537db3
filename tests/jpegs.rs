//! JPEGs that libjpeg-turbo's `cjpeg` writes in every sampling, size and kind of scans, against what its `djpeg` reads.

mod support;

use std::fs;
use std::path::Path;
use std::process::Command;

use decorr::Picture;

/// Factors of brightness and of the colours.
const SAMPLINGS: [&str; 11] = [
    "1x1,1x1,1x1",
    "2x1,1x1,1x1",
    "1x2,1x1,1x1",
    "2x2,1x1,1x1",
    "4x1,1x1,1x1",
    "1x4,1x1,1x1",
    "4x2,1x1,1x1",
    "2x2,2x1,2x1",
    "2x2,1x2,1x2",
    "1x1,2x1,2x1",
    "3x1,1x1,1x1",
];

const SIZES: [(usize, usize); 6] = [(64, 48), (37, 29), (17, 65), (8, 8), (5, 3), (1, 1)];

/// Arguments of `cjpeg`; SCANS stands for a file with each component in a scan of its own.
const KINDS: [&[&str]; 8] = [
    &[],
    &["-progressive"],
    &["-scans", "SCANS"],
    &["-restart", "1B"],
    &["-restart", "5B"],
    &["-scans", "SCANS", "-restart", "5B"],
    &["-progressive", "-restart", "3B"],
    &["-optimize"],
];

fn ppm(width: usize, height: usize) -> Vec<u8> {
    let mut bytes = format!("P6 {width} {height} 255\n").into_bytes();
    for y in 0..height {
        for x in 0..width {
            // Smooth, with an edge: what is upsampled in another way is then near, and noise is not.
            let edge = if x > width / 2 && y > height / 3 {
                60
            } else {
                0
            };
            // A fine pattern of brightness: a coefficient after many that are zero.
            let edge = edge + if x < width / 3 { 30 * ((x + y) % 2) } else { 0 };
            bytes.extend([
                (x * 160 / width + edge) as u8,
                (y * 200 / height + edge / 4) as u8,
                (200 - x * 150 / width + edge / 2) as u8,
            ]);
        }
    }
    bytes
}

fn output(command: &mut Command) -> Option<Vec<u8>> {
    let output = command.output().ok()?;
    output.status.success().then_some(output.stdout)
}

/// Pixels of a binary PNM, and its channels.
fn pixels(pnm: &[u8]) -> (usize, &[u8]) {
    let mut at = 0;
    let mut fields = Vec::new();
    while fields.len() < 4 {
        let end = at + pnm[at..].iter().position(u8::is_ascii_whitespace).unwrap();
        fields.push(String::from_utf8_lossy(&pnm[at..end]).into_owned());
        at = end + 1;
    }
    (if fields[0] == "P6" { 3 } else { 1 }, &pnm[at..])
}

#[test]
fn jpegs_of_every_kind_are_read_as_libjpeg_turbo_reads_them_or_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_string_lossy().into_owned();
    if Command::new("cjpeg").arg("-version").output().is_err() {
        support::report("NOT RUN: there is no cjpeg (Debian: libjpeg-turbo-progs)");
        return;
    }
    fs::write(path("scans"), "0;\n1;\n2;\n").unwrap();
    let (mut read, mut refused, mut worst) = (0, Vec::new(), 0.0_f32);
    let (mut wrong, mut taken) = (Vec::new(), Vec::new());
    for (width, height) in SIZES {
        fs::write(path("in.ppm"), ppm(width, height)).unwrap();
        for (kind, sampling) in KINDS.iter().flat_map(|kind| SAMPLINGS.map(|s| (kind, s))) {
            let args = kind.iter().map(|a| a.replace("SCANS", &path("scans")));
            let args: Vec<String> = args.collect();
            let what = format!("{width}x{height} {sampling} {kind:?}");
            let mut cjpeg = Command::new("cjpeg");
            cjpeg
                .args(["-quality", "90", "-sample", sampling])
                .args(&args);
            cjpeg.args(["-outfile", &path("a.jpg"), &path("in.ppm")]);
            output(&mut cjpeg).unwrap_or_else(|| panic!("cjpeg: {what}"));
            let bytes = fs::read(path("a.jpg")).unwrap();
            // One that lacks the end of its last scan is not taken for whole.
            let cut = bytes.len() - 2 - bytes.len() / 16;
            let cut = [&bytes[..cut], &[0xff, 0xd9]].concat();
            if Picture::decode(Path::new("cut.jpg"), &cut).is_ok() {
                taken.push(what.clone());
            }
            let reference = output(Command::new("djpeg").args(["-pnm", &path("a.jpg")])).unwrap();
            let (channels, wanted) = pixels(&reference);
            match Picture::decode(Path::new("a.jpg"), &bytes) {
                Ok(picture) => {
                    assert_eq!(
                        (picture.width, picture.height, picture.channels),
                        (width, height, channels),
                        "{what}"
                    );
                    let plane = width * height;
                    let differences = wanted.iter().enumerate().map(|(i, &v)| {
                        let found = picture.data[i % channels * plane + i / channels] * 255.0;
                        (found - f32::from(v)).abs()
                    });
                    let most = differences.fold(0.0, f32::max);
                    if most > 4.5 {
                        wrong.push(format!("{what}: {most} levels off"));
                    }
                    worst = worst.max(most);
                    read += 1;
                }
                Err(error) => refused.push(format!("{what}: {error}")),
            }
        }
    }
    support::report(&format!(
        "{read} JPEGs read, at most {worst:.1} levels from libjpeg-turbo; {} refused",
        refused.len()
    ));
    for line in refused.iter().take(3) {
        support::report(line);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(taken.is_empty(), "cut, and read: {}", taken.join("\n"));
    assert!(read >= 300 && refused.len() < read / 5, "{refused:?}");
}
