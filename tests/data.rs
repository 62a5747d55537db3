//! Bad data sets, and good ones that look odd: made here, opened as a user opens them.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use decorr::data::{self, Augment, Batch, DataOptions, DataSet, Images, Pixels, Source};
use image::{DynamicImage, GrayImage, Rgb, RgbImage};

fn decorr(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_decorr"));
    command.args(args).output().expect("decorr starts")
}

/// What was printed: on standard output and as errors.
fn printed(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

fn contains(text: &str, wanted: &[&str]) {
    assert!(!text.contains("panicked"), "{text}");
    for part in wanted {
        assert!(text.contains(part), "no {part:?} in: {text}");
    }
}

/// CIFAR-10 of `count` images a file, image i of colour i and class i % 10.
fn cifar10(dir: &Path, count: usize) {
    let records: Vec<u8> = (0..count)
        .flat_map(|i| std::iter::once((i % 10) as u8).chain([i as u8; 3072]))
        .collect();
    for file in ["data_batch_1.bin", "data_batch_2.bin", "test_batch.bin"] {
        fs::write(dir.join(file), &records).unwrap();
    }
}

fn options() -> DataOptions {
    DataOptions {
        image_size: 8,
        ..DataOptions::default()
    }
}

fn refused(name: &str, dir: &Path, wanted: &[&str]) {
    let error = data::open(name, Some(dir), &options()).expect_err("it was opened");
    contains(&error.to_string(), wanted);
}

#[test]
fn cifar_files_are_verified_on_opening() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    refused("cifar10", dir, &["data_batch_1.bin", "data fetch cifar10"]);
    cifar10(dir, 20);
    let set = data::open("cifar10", Some(dir), &options()).unwrap();
    assert_eq!((set.train.len(), set.test.len()), (40, 20));
    contains(
        &set.notices[0],
        &[
            "40 images, not the 50000",
            "data_batch_2.bin 20",
            "data_batch_5.bin 0",
        ],
    );

    let file = dir.join("data_batch_2.bin");
    let whole = fs::read(&file).unwrap();
    fs::write(&file, &whole[..3073 * 3 + 100]).unwrap();
    let wanted = ["data_batch_2.bin", "byte 9319", "100 bytes into record 3"];
    refused("cifar10", dir, &wanted);
    let mut wrong = whole.clone();
    wrong[3073 * 4] = 11;
    fs::write(&file, &wrong).unwrap();
    let wanted = [
        "data_batch_2.bin",
        "label 11 of record 4",
        "byte 12292",
        "below 10",
    ];
    refused("cifar10", dir, &wanted);
    fs::write(&file, []).unwrap();
    refused("cifar10", dir, &["data_batch_2.bin", "byte 0"]);
    fs::rename(&file, dir.join("data_batch_3.bin")).unwrap();
    refused("cifar10", dir, &["data_batch_2.bin", "is missing"]);
}

#[test]
fn cifar_100_has_coarse_and_fine_labels() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("cifar-100-binary");
    fs::create_dir(&folder).unwrap();
    let record = |coarse: u8, fine: u8| [&[coarse, fine][..], &[7; 3072]].concat();
    fs::write(folder.join("test.bin"), record(19, 99)).unwrap();
    let train = folder.join("train.bin");
    fs::write(&train, [record(3, 42), record(4, 0)].concat()).unwrap();
    let set = data::open("cifar100", Some(dir.path()), &options()).unwrap();
    assert_eq!((set.train.classes, &*set.train.labels), (100, &[42, 0][..]));
    fs::write(&train, [record(3, 42), record(20, 0)].concat()).unwrap();
    let wanted = ["train.bin", "coarse label 20", "byte 3074", "below 20"];
    refused("cifar100", dir.path(), &wanted);
    fs::write(&train, record(3, 100)).unwrap();
    refused(
        "cifar100",
        dir.path(),
        &["label 100 of record 0, at byte 1"],
    );
}

fn save(path: &Path, image: impl Into<DynamicImage>) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    image.into().save(path).unwrap();
}

/// Two classes of `count` pictures each in train/ and one each in val/.
fn folder(root: &Path, count: u32) {
    for (class, name) in ["cat", "dog"].iter().enumerate() {
        let shade = |i: u32| Rgb([(100 * class) as u8, 10, i as u8]);
        for i in 0..count {
            let picture = RgbImage::from_pixel(20 + i, 16, shade(i));
            save(&root.join(format!("train/{name}/{i:02}.JPEG")), picture);
        }
        let picture = RgbImage::from_pixel(12, 30, shade(0));
        save(&root.join(format!("val/{name}/0.png")), picture);
    }
}

/// `count` batches of `size` training images.
fn batches(set: &DataSet, size: usize, count: usize) -> decorr::Result<Vec<Batch>> {
    let mut loader = set.train_loader(size, 1, 0)?;
    let next = |_| Ok(loader.next_batch()?.expect("training goes on for ever"));
    (0..count).map(next).collect()
}

#[test]
fn odd_pictures_are_pictures() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    folder(root, 1);
    save(&root.join("train/cat/grey.jpg"), GrayImage::new(9, 9));
    save(&root.join("train/dog/one.png"), RgbImage::new(1, 1));
    let cmyk = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/cmyk.jpg");
    fs::copy(cmyk, root.join("train/dog/cmyk.jpg")).unwrap();
    fs::write(root.join("train/dog/readme.txt"), "left alone").unwrap();
    let set = data::open("folder", Some(root), &options()).unwrap();
    assert_eq!((set.train.len(), set.train.classes), (5, 2));
    let batches = batches(&set, 5, 2).unwrap();
    assert!(batches.iter().all(|b| b.images.len() == 5 * 3 * 8 * 8));
    assert_ne!(batches[0].images, batches[1].images);
    let mut test = set.test_loader(4).unwrap();
    let batch = test.next_batch().unwrap().unwrap();
    assert_eq!(
        (batch.len, &*batch.labels),
        (2, &[0.0, 1.0, -1.0, -1.0][..])
    );
}

/// By index: bytes and floats as they were given, pictures as evaluation sees them; each with its label.
#[test]
fn images_are_given_raw() {
    let bytes: Vec<u8> = (0..3 * 30).map(|i| i * 2 + 7).collect();
    let floats: Vec<f32> = bytes.iter().map(|&v| f32::from(v) - 50.0).collect();
    let labels = vec![2, 0, 1];
    let of = |source: Source| Images::new(source, [2, 3, 5], labels.clone(), 3).unwrap();
    let (of_bytes, of_floats) = (of(bytes.clone().into()), of(floats.clone().into()));
    for (i, &label) in labels.iter().enumerate() {
        let range = i * 30..(i + 1) * 30;
        let raw = Pixels::Bytes(bytes[range.clone()].to_vec());
        assert_eq!(of_bytes.image(i).unwrap(), (raw, label));
        let raw = Pixels::Floats(floats[range].to_vec());
        assert_eq!(of_floats.image(i).unwrap(), (raw, label));
    }
    for images in [&of_bytes, &of_floats] {
        for i in [3, usize::MAX] {
            let error = images.image(i).unwrap_err().to_string();
            contains(&error, &[&format!("no image {i}")]);
        }
    }

    let dir = tempfile::tempdir().unwrap();
    folder(dir.path(), 3);
    let set = data::open("folder", Some(dir.path()), &options()).unwrap();
    let batch = set.test_loader(2).unwrap().next_batch().unwrap().unwrap();
    let raw: Vec<u8> = (0..2)
        .flat_map(|i| match set.test.image(i).unwrap() {
            (Pixels::Bytes(bytes), label) if usize::from(label) == i => bytes,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(raw.len(), 2 * 3 * 8 * 8);
    assert_eq!(batch.images, Pixels::Bytes(raw));
}

/// (v / 255 - mean) / std by channel, of floats (v - mean) / std; what augmentation moves in is black before that.
#[test]
fn pixels_are_normalised_by_channel_after_augmentation() {
    let bytes: Vec<u8> = (0..4 * 2 * 36).map(|i| (i % 251 + 1) as u8).collect();
    let floats: Vec<f32> = bytes.iter().map(|&v| f32::from(v)).collect();
    let set = |source: Source| {
        let images = Images::new(source, [2, 6, 6], vec![0; 4], 1).unwrap();
        let mut set = DataSet::new(images.clone(), images, &[0.5, 0.25], &[0.25, 2.0]).unwrap();
        set.augment = Augment::CropFlip;
        set
    };
    let (of_bytes, of_floats) = (set(bytes.into()), set(floats.into()));
    let [first, second] = [&of_bytes, &of_floats].map(|set| batches(set, 4, 5).unwrap());
    let mut black = 0;
    for (first, second) in first.iter().zip(&second) {
        let (Pixels::Bytes(bytes), Pixels::Floats(floats)) = (&first.images, &second.images) else {
            panic!("{:?} and {:?}", first.images, second.images);
        };
        let same: Vec<f32> = bytes.iter().map(|&v| f32::from(v)).collect();
        assert_eq!(&same, floats);
        black += bytes.iter().filter(|&&v| v == 0).count();
        let normalised = of_bytes.normalise(&first.images);
        let of_floats = of_floats.normalise(&second.images);
        assert_eq!(normalised.len(), 4 * 2 * 36);
        for (i, &v) in bytes.iter().enumerate() {
            let (mean, std) = [(0.5, 0.25), (0.25, 2.0)][i / 36 % 2];
            let v = f64::from(v);
            let wanted = [(v / 255.0 - mean) / std, (v - mean) / std];
            for (given, wanted) in [normalised[i], of_floats[i]].into_iter().zip(wanted) {
                assert!((f64::from(given) - wanted).abs() <= 1e-6 * wanted.abs().max(1.0));
            }
        }
    }
    // Some of the 1440 pixels come from outside.
    assert!(black > 100, "{black}");
}

#[test]
fn folders_are_verified_on_opening() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    refused("folder", root, &["train", "train/CLASS/*"]);
    fs::create_dir(root.join("train")).unwrap();
    refused("folder", root, &["train", "one for each class"]);
    folder(root, 2);
    fs::create_dir(root.join("train/empty")).unwrap();
    refused("folder", root, &["train/empty", "has no picture"]);
    fs::remove_dir(root.join("train/empty")).unwrap();
    save(&root.join("val/fish/0.png"), RgbImage::new(2, 2));
    refused("folder", root, &["val/fish", "train/ has no folder"]);
    fs::remove_dir_all(root.join("val")).unwrap();
    let set = data::open("folder", Some(root), &options()).unwrap();
    assert_eq!(set.test.labels, set.train.labels);
    assert!(set.notices[0].contains("neither val/ nor test/"));
}

/// One that is cut short and one that cannot be read at all.
fn spoil(root: &Path) {
    let file = root.join("train/dog/03.JPEG");
    let bytes = fs::read(&file).unwrap();
    fs::write(&file, &bytes[..bytes.len() - 20]).unwrap();
    fs::write(root.join("train/cat/unreadable.jpg"), "no picture").unwrap();
}

#[test]
fn bad_pictures_end_the_epoch_or_are_skipped_and_named() {
    let dir = tempfile::tempdir().unwrap();
    folder(dir.path(), 8);
    spoil(dir.path());
    let set = data::open("folder", Some(dir.path()), &options()).unwrap();
    assert_eq!(set.train.len(), 17);
    let text = batches(&set, 4, 4).unwrap_err().to_string();
    assert!(
        text.contains("03.JPEG") || text.contains("unreadable.jpg"),
        "{text}"
    );

    let with = |workers| {
        let options = DataOptions {
            skip_bad: true,
            workers,
            ..options()
        };
        let set = data::open("folder", Some(dir.path()), &options).unwrap();
        batches(&set, 17, 2).unwrap()
    };
    let one = with(1);
    for batch in &one {
        assert_eq!((batch.len, batch.skipped.len()), (17, 2));
        assert!(batch.labels.iter().all(|&l| l >= 0.0));
        let text = batch.skipped.join("\n");
        contains(&text, &["dog/03.JPEG: is no picture", "cat/unreadable.jpg"]);
    }
    assert_eq!(one, with(3));
}

#[test]
fn bad_test_pictures_are_left_out() {
    let dir = tempfile::tempdir().unwrap();
    folder(dir.path(), 1);
    fs::write(dir.path().join("val/cat/0.png"), "no picture").unwrap();
    let options = DataOptions {
        skip_bad: true,
        ..options()
    };
    let set = data::open("folder", Some(dir.path()), &options).unwrap();
    let batch = set.test_loader(2).unwrap().next_batch().unwrap().unwrap();
    assert_eq!((batch.len, &*batch.labels), (1, &[1.0, -1.0][..]));
    fs::write(dir.path().join("train/cat/00.JPEG"), "").unwrap();
    fs::write(dir.path().join("train/dog/00.JPEG"), "").unwrap();
    let error = batches(&set, 2, 1).unwrap_err();
    contains(&error.to_string(), &["train", "no image can be read"]);
}

#[test]
fn check_counts_and_names_what_is_bad() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    let check = || decorr(&["data", "check", root.to_str().unwrap()]);
    let (_, error) = printed(&check());
    contains(&error, &["holds no data set", "data_batch_1.bin"]);
    folder(root, 8);
    let output = check();
    assert!(output.status.success());
    let wanted = ["folder: 16 training and 2 test images of 2 classes, 8 to 8 of each"];
    contains(&printed(&output).0, &wanted);
    spoil(root);
    let output = check();
    assert!(!output.status.success());
    let (text, error) = printed(&output);
    contains(
        &text,
        &["bad:", "dog/03.JPEG: is no picture", "cat/unreadable.jpg"],
    );
    contains(&error, &["2 files cannot be used", "--skip-bad"]);
    // Wherever it lies.
    for split in ["train", "val"] {
        let dir = tempfile::tempdir().unwrap();
        folder(dir.path(), 8);
        fs::write(dir.path().join(split).join("cat/broken.png"), "no picture").unwrap();
        let output = decorr(&["data", "check", dir.path().to_str().unwrap()]);
        assert!(!output.status.success(), "{split}");
        contains(&printed(&output).0, &[&format!("{split}/cat/broken.png")]);
    }
}

#[test]
fn check_says_what_an_official_set_lacks() {
    let dir = tempfile::tempdir().unwrap();
    cifar10(dir.path(), 10);
    let output = decorr(&["data", "check", dir.path().to_str().unwrap()]);
    let wanted = [
        "cifar10: 20 training and 10 test",
        "note:",
        "not the 50000",
        "data_batch_1.bin 10",
    ];
    contains(&printed(&output).0, &wanted);
}

#[test]
fn training_on_pictures_with_a_bad_one_among_them() {
    let dir = tempfile::tempdir().unwrap();
    folder(&dir.path().join("pictures"), 8);
    spoil(&dir.path().join("pictures"));
    let path = |name: &str| dir.path().join(name).to_string_lossy().into_owned();
    let (pictures, out) = (path("pictures"), path("out"));
    let mut args = vec!["train", "--data", "folder", "--data-dir", &pictures];
    args.extend(["--image-size", "8", "--model", "linear", "--norm", "none"]);
    args.extend([
        "--batch-size",
        "17",
        "--epochs",
        "2",
        "--out",
        &out,
        "--force",
    ]);
    let output = decorr(&args);
    let (_, error) = printed(&output);
    assert!(!output.status.success());
    assert!(
        error.contains("03.JPEG") || error.contains("unreadable.jpg"),
        "{error}"
    );
    args.push("--skip-bad");
    let output = decorr(&args);
    let (_, error) = printed(&output);
    assert!(output.status.success(), "{error}");
    contains(&error, &["skipped: ", "dog/03.JPEG", "skipped 4 times"]);
    let checkpoint = path("out/model.safetensors");
    let output = decorr(&["eval", "--checkpoint", &checkpoint]);
    let (text, error) = printed(&output);
    assert!(output.status.success(), "{error}");
    contains(&text, &["over 2 images"]);
    // A test picture that is bad is left out as in the training, without the option.
    fs::write(path("pictures/val/cat/0.png"), "no picture").unwrap();
    let (text, error) = printed(&decorr(&["eval", "--checkpoint", &checkpoint]));
    contains(&text, &["over 1 images"]);
    contains(&error, &["val/cat/0.png"]);
}

#[test]
fn sets_are_listed_and_unknown_ones_refused() {
    let (text, _) = printed(&decorr(&["data", "list"]));
    contains(
        &text,
        &[
            "fashion-mnist",
            "cifar100",
            "50000 + 10000",
            "train/CLASS/*",
        ],
    );
    let (_, error) = printed(&decorr(&["train", "--data", "cifar11"]));
    contains(&error, &["cifar11", "cifar10", "folder"]);
    let (_, error) = printed(&decorr(&["train", "--data", "folder"]));
    contains(&error, &["--data-dir", "train/CLASS"]);
    let (_, error) = printed(&decorr(&["data", "fetch", "folder"]));
    contains(&error, &["no set to download"]);
}

/// The files of a class whose pictures lie in folders of its folder; what is no picture is counted and said.
#[test]
fn pictures_in_folders_of_folders_are_taken_and_others_are_counted() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    folder(root, 2);
    for i in 0..3 {
        let picture = RgbImage::from_pixel(9, 9, Rgb([1, 2, i]));
        save(&root.join(format!("train/cat/more/deep/{i}.png")), picture);
    }
    fs::write(root.join("train/cat/phone.HEIC"), "x").unwrap();
    fs::write(root.join("train/cat/more/notes.txt"), "x").unwrap();
    fs::write(root.join("train/labels"), "x").unwrap();
    fs::write(root.join("train/cat/.hidden"), "x").unwrap();
    let set = data::open("folder", Some(root), &options()).unwrap();
    assert_eq!(&*set.train.labels, &[0, 0, 0, 0, 0, 1, 1]);
    let wanted = [
        "3 files are passed over",
        "1 with .HEIC",
        "1 with .txt",
        "1 with no ending",
    ];
    contains(&set.notices.join("\n"), &wanted);
    batches(&set, 7, 1).unwrap();
}

#[test]
fn labels_are_those_of_the_training_folders() {
    let dir = tempfile::tempdir().unwrap();
    for (split, classes) in [("train", &["a", "b", "c"][..]), ("val", &["b", "c"])] {
        for class in classes {
            let path = dir.path().join(format!("{split}/{class}/0.png"));
            save(&path, RgbImage::new(4, 4));
        }
    }
    let set = data::open("folder", Some(dir.path()), &options()).unwrap();
    assert_eq!(
        (&*set.train.labels, &*set.test.labels),
        (&[0, 1, 2][..], &[1, 2][..])
    );
}

#[cfg(unix)]
#[test]
fn names_that_are_no_unicode_stop_nothing() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    let dir = tempfile::tempdir().unwrap();
    folder(dir.path(), 1);
    let cat = dir.path().join("train/cat");
    fs::write(cat.join(OsStr::from_bytes(b".h\xff")), "x").unwrap();
    fs::write(cat.join(OsStr::from_bytes(b"t\xff.txt")), "x").unwrap();
    fs::copy(
        cat.join("00.JPEG"),
        cat.join(OsStr::from_bytes(b"p\xff.JPEG")),
    )
    .unwrap();
    let set = data::open("folder", Some(dir.path()), &options()).unwrap();
    assert_eq!(set.train.len(), 3);
    batches(&set, 3, 1).unwrap();
}

/// As torchvision lays them out, below any folder, and with dots in their names.
#[test]
fn files_are_found_where_other_programs_put_them() {
    let idx_of = |header: &[u8], len: usize| [header, &vec![3; len]].concat();
    let idx = |images: bool| match images {
        true => idx_of(&[0, 0, 8, 3, 0, 0, 0, 1, 0, 0, 0, 28, 0, 0, 0, 28], 784),
        false => idx_of(&[0, 0, 8, 1, 0, 0, 0, 1], 1),
    };
    // Where no folder says which of the two it is, it is the first.
    for (set, root, place, dash, said) in [
        ("mnist", "any", "MNIST/raw", "-", "mnist"),
        ("mnist", "any", "raw", ".", "fashion-mnist"),
        (
            "fashion-mnist",
            "any",
            "FashionMNIST/raw",
            "-",
            "fashion-mnist",
        ),
        ("mnist", "any", "", ".", "fashion-mnist"),
        ("mnist", "mnist", "", "-", "mnist"),
        ("mnist", "MNIST", "raw", "-", "mnist"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join(root);
        let place = root.join(place);
        fs::create_dir_all(&place).unwrap();
        for split in ["train", "t10k"] {
            for (what, kind) in [("images", "idx3"), ("labels", "idx1")] {
                let name = format!("{split}-{what}{dash}{kind}-ubyte");
                fs::write(place.join(name), idx(what == "images")).unwrap();
            }
        }
        let opened = data::open(set, Some(&root), &options()).unwrap();
        assert_eq!(
            (opened.train.len(), opened.test.len()),
            (1, 1),
            "{set} {dash}"
        );
        let output = decorr(&["data", "check", root.to_str().unwrap()]);
        let text = printed(&output).0;
        let wanted = format!("{said}: 1 training and 1 test");
        assert!(text.starts_with(&wanted), "{}: {text}", place.display());
    }
    // The folder itself comes before those below.
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("raw")).unwrap();
    let two = [
        idx_of(&[0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 28, 0, 0, 0, 28], 2 * 784),
        idx_of(&[0, 0, 8, 1, 0, 0, 0, 2], 2),
    ];
    let one = [idx(true), idx(false)];
    for (place, [images, labels]) in [("", two), ("raw", one)] {
        let file = |name: &str| dir.path().join(place).join(name);
        for split in ["train", "t10k"] {
            fs::write(file(&format!("{split}-images-idx3-ubyte")), &images).unwrap();
            fs::write(file(&format!("{split}-labels-idx1-ubyte")), &labels).unwrap();
        }
    }
    let opened = data::open("mnist", Some(dir.path()), &options()).unwrap();
    assert_eq!((opened.train.len(), opened.test.len()), (2, 2));
    let dir = tempfile::tempdir().unwrap();
    let below = dir.path().join("downloads/cifar-10-batches-bin");
    fs::create_dir_all(&below).unwrap();
    cifar10(&below, 1);
    data::open("cifar10", Some(dir.path()), &options()).unwrap();
}
