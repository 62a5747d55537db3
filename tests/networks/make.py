#!/usr/bin/env python3
"""Makes the reference files of tests/networks.rs with torch and torchvision.

    apt-get install python3-torch python3-torchvision     # 1.13 and 0.14 made the committed files
    python3 tests/networks/make.py                         # writes tests/networks/*.safetensors
    python3 tests/networks/make.py --steps                 # writes tests/networks/steps.json
    python3 tests/networks/make.py --full DIR              # full-size ones, with the state dicts
    DECORR_NETWORKS=DIR cargo test --release --test networks full_size
    python3 tests/networks/make.py --load DIR              # what that test saved, into torchvision

README.md beside it says what is in the files.
"""

import argparse
import json
import pathlib
import struct

import numpy as np
import torch
import torchvision
from torch import nn
from torchvision.models import densenet, resnet, vgg

HERE = pathlib.Path(__file__).parent
SAMPLES = 256
VGG11 = [64, "M", 128, "M", 256, 256, "M", 512, 512, "M", 512, 512, "M"]


# Values that both sides compute: a hash of the tensor's name and the element's number.


def noise(name, count):
    """`count` numbers in [-1, 1) that float32 holds exactly."""
    h = np.uint32(0x811C9DC5)
    with np.errstate(over="ignore"):
        for byte in name.encode():
            h = (h ^ np.uint32(byte)) * np.uint32(0x01000193)
        v = np.arange(count, dtype=np.uint32) * np.uint32(0x9E3779B1) + h
        for shift, factor in [(16, 0x85EBCA6B), (13, 0xC2B2AE35)]:
            v = (v ^ (v >> np.uint32(shift))) * np.uint32(factor)
        v ^= v >> np.uint32(16)
    return (v >> np.uint32(8)).astype(np.float64) / 2**23 - 1


def value(name, shape):
    """The value of a state, by its kind: float32 as float64."""
    u = noise(name, int(np.prod(shape))).reshape(shape)
    if name.endswith("running_var") or (name.endswith("weight") and len(shape) == 1):
        u = 1 + u / 4
    elif len(shape) == 1:
        u = u / 10
    elif name.endswith("running_deconv"):
        u = np.broadcast_to(np.eye(shape[-1]), shape)
    else:
        u = u * np.sqrt(3 / np.prod(shape[1:]))
    return torch.from_numpy(u.astype(np.float32).astype(np.float64))


def fill(model):
    state = model.state_dict()
    for name, tensor in state.items():
        if tensor.dtype == torch.int64:
            tensor.fill_(7)
        else:
            tensor.copy_(value(name, tuple(tensor.shape)).to(tensor.dtype))
    model.load_state_dict(state)


# The deconvolved layers, after tests/goldens/README.md, layout contiguous, groups 1.


def inverse_root(cov, n_iter):
    s = cov.norm()
    y, z = cov / s, torch.eye(len(cov), dtype=cov.dtype)
    three = 3 * torch.eye(len(cov), dtype=cov.dtype)
    for _ in range(n_iter):
        t = (three - z @ y) / 2
        y, z = y @ t, t @ z
    return z / s.sqrt()


class Deconv(nn.Module):
    """Statistics of rows [M, F], running ones in evaluation."""

    def __init__(self, shape, features, n_iter, eps=1e-5):
        super().__init__()
        self.n_iter, self.eps = n_iter, eps
        self.register_buffer("running_mean", torch.zeros(*shape, features))
        self.register_buffer("running_deconv", torch.eye(features).expand(*shape, -1, -1).clone())

    def statistics(self, rows):
        features = self.running_mean.shape[-1]
        if not self.training:
            return self.running_mean.view(-1), self.running_deconv.view(features, features)
        mean = rows.mean(0)
        centred = rows - mean
        cov = centred.T @ centred / len(rows) + self.eps * torch.eye(features, dtype=rows.dtype)
        deconv = inverse_root(cov, self.n_iter)
        with torch.no_grad():
            for running, new in [(self.running_mean, mean), (self.running_deconv, deconv)]:
                running.copy_(0.9 * running + 0.1 * new.view(running.shape))
        return mean, deconv

    def fold(self, weight, bias, mean, deconv):
        rows = weight.reshape(len(weight), -1, len(mean)) @ deconv
        return rows.reshape(weight.shape), bias - (rows @ mean).sum(1)


def block_of(block, features):
    return features if block >= features else int(np.gcd(block, features))


class DeconvConv2d(Deconv):
    def __init__(self, conv, n_iter, block, sampling_stride=3):
        k, c = conv.kernel_size[0], conv.in_channels
        super().__init__((1,), block_of(block, c) * k * k, n_iter)
        self.weight = nn.Parameter(torch.zeros(conv.weight.shape))
        self.bias = nn.Parameter(torch.zeros(conv.out_channels))
        self.k, self.stride, self.padding = k, conv.stride[0], conv.padding[0]
        self.sampling = self.stride * sampling_stride

    def rows(self, x):
        features = self.running_mean.shape[-1]
        if self.k == 1:
            pixels = x.permute(0, 2, 3, 1).reshape(-1, x.shape[1])
            return pixels[:: self.sampling**2].reshape(-1, features)
        columns = nn.functional.unfold(x, self.k, padding=self.padding, stride=self.sampling)
        return columns.transpose(1, 2).reshape(-1, features)

    def forward(self, x):
        weight, bias = self.fold(self.weight, self.bias, *self.statistics(self.rows(x)))
        return nn.functional.conv2d(x, weight, bias, self.stride, self.padding)


class DeconvLinear(Deconv):
    def __init__(self, linear, block):
        super().__init__((), block_of(block, linear.in_features), 5)
        self.weight = nn.Parameter(torch.zeros(linear.weight.shape))
        self.bias = nn.Parameter(torch.zeros(linear.out_features))

    def forward(self, x):
        rows = x.reshape(-1, self.running_mean.shape[-1])
        return nn.functional.linear(x, *self.fold(self.weight, self.bias, *self.statistics(rows)))


def replace(model, kind, make):
    """Every module of `kind` by `make` of it, in the order of the model."""
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is kind:
                setattr(parent, name, make(child))


def deconvolve(model, form, block):
    first = next(m for m in model.modules() if isinstance(m, nn.Conv2d))
    replace(model, nn.Conv2d, lambda c: DeconvConv2d(c, 15 if c is first else 5, block))
    of_linear = (lambda l: 512) if form == "cifar" else (lambda l: max(l.in_features // 32, 1))
    replace(model, nn.Linear, lambda l: DeconvLinear(l, of_linear(l)))


# The networks, narrowed by `width` as decorr's --width.


def scaled(channels, width):
    return channels if width == 1 else max(int(np.floor(channels * width / 8 + 0.5)), 1) * 8


def make_vgg(form, norm, width, classes):
    table = [c if c == "M" else scaled(c, width) for c in VGG11]
    features = vgg.make_layers(table, batch_norm=norm == "batch")
    model = vgg.VGG(features, num_classes=classes, init_weights=False, dropout=0.0)
    last, hidden = table[-2], scaled(4096, width)
    if form == "imagenet":
        model.classifier[0] = nn.Linear(last * 49, hidden)
        model.classifier[3] = nn.Linear(hidden, hidden)
        model.classifier[6] = nn.Linear(hidden, classes)
    else:
        model.avgpool = nn.AdaptiveAvgPool2d(1)
        model.classifier = nn.Linear(last, classes)
    return model


class NarrowResNet(resnet.ResNet):
    def __init__(self, form, width, norm_layer, **options):
        self.width, self.narrowed = width, False
        super().__init__(norm_layer=norm_layer, **options)
        stem = scaled(64, width)
        large = form == "imagenet"
        self.conv1 = nn.Conv2d(3, stem, 7 if large else 3, 2 if large else 1, 3 if large else 1, bias=False)
        self.bn1 = norm_layer(stem)
        self.maxpool = self.maxpool if large else nn.Identity()
        self.fc = nn.Linear(self.inplanes, self.fc.out_features)

    def _make_layer(self, block, planes, *rest, **options):
        if not self.narrowed:
            self.inplanes, self.narrowed = scaled(64, self.width), True
        return super()._make_layer(block, scaled(planes, self.width), *rest, **options)


def make_resnet(block, layers):
    def make(form, norm, width, classes):
        norm_layer = nn.BatchNorm2d if norm == "batch" else nn.Identity
        return NarrowResNet(form, width, norm_layer, block=block, layers=layers, num_classes=classes)

    return make


def make_densenet(form, norm, width, classes):
    stem, growth = scaled(64, width), scaled(32, width)
    model = densenet.DenseNet(growth, (6, 12, 24, 16), stem, num_classes=classes)
    if form == "cifar":
        model.features.conv0 = nn.Conv2d(3, stem, 3, 1, 1, bias=False)
        model.features.norm0 = model.features.relu0 = model.features.pool0 = nn.Identity()
    if norm != "batch":
        replace(model, nn.BatchNorm2d, lambda n: nn.Identity())
    return model


class Cnn(nn.Module):
    """decorr's own small network."""

    def __init__(self, form, norm, width, classes):
        super().__init__()
        channels = [1, *(scaled(c, width) for c in [32, 64, 128])]
        self.conv1, self.conv2, self.conv3 = (nn.Conv2d(a, b, 3, padding=1) for a, b in zip(channels, channels[1:]))
        # For images of 8 to 15 pixels, of which the pooling leaves one.
        self.fc = nn.Linear(channels[3], classes)

    def forward(self, x):
        for conv in [self.conv1, self.conv2, self.conv3]:
            x = nn.functional.max_pool2d(nn.functional.relu(conv(x)), 2)
        return self.fc(x.flatten(1))


NETWORKS = {
    "cnn": Cnn,
    "vgg11": make_vgg,
    "resnet18": make_resnet(resnet.BasicBlock, [2, 2, 2, 2]),
    "resnet50": make_resnet(resnet.Bottleneck, [3, 4, 6, 3]),
    "densenet121": make_densenet,
}


def network(name, form, norm, width, classes, block=64):
    model = NETWORKS[name](form, norm, width, classes)
    if norm == "deconv":
        deconvolve(model, form, block)
    return model


# Cases: name, form, norm, width, classes, images.
CASES = [
    ("vgg11", "imagenet", "none", 1 / 64, 10, [2, 3, 224, 224]),
    ("vgg11", "cifar", "batch", 1 / 8, 10, [8, 3, 32, 32]),
    ("resnet18", "imagenet", "batch", 1 / 8, 10, [4, 3, 64, 64]),
    ("resnet50", "imagenet", "batch", 1 / 8, 10, [4, 3, 64, 64]),
    ("densenet121", "imagenet", "batch", 1 / 8, 10, [4, 3, 64, 64]),
    ("vgg11", "cifar", "deconv", 1 / 8, 10, [16, 3, 32, 32]),
    ("resnet18", "cifar", "deconv", 1 / 16, 10, [8, 3, 16, 16]),
    ("densenet121", "cifar", "deconv", 1 / 8, 10, [8, 3, 32, 32]),
]
# Where no images are far enough from ReLUs' kinks for float32 to have all gradients: they would judge luck.
WITHOUT_GRADIENTS = ["resnet50", "densenet121"]


def results(model, images, labels, dtype):
    """Logits of evaluation, then loss and gradients of a training step, then evaluation again, with
    the running statistics that the step has moved."""
    model = model.to(dtype)
    fill(model)
    images = images.to(dtype)
    found = {"logits": model.eval()(images).detach()}
    loss = nn.functional.cross_entropy(model.train()(images), labels)
    loss.backward()
    found["loss"] = loss.detach().view(1)
    found["logits_after"] = model.eval()(images).detach()
    for name, parameter in model.named_parameters():
        found["grad." + name] = parameter.grad.clone()
    model.zero_grad(set_to_none=True)
    return {name: t.double().numpy() for name, t in found.items()}


def shake(j, images):
    """Noise larger than what float32 makes of any order of sums."""
    return torch.from_numpy(noise(f"shake {j}", images.numel()).reshape(images.shape)) * 2**-20


def sampled(values):
    """At most SAMPLES of the values, evenly spread by an odd step."""
    values = values.reshape(-1)
    step = -(-len(values) // SAMPLES)
    return values[:: step + 1 - step % 2]


def make(case, out):
    name, form, norm, width, classes, shape = case
    model = network(name, form, norm, width, classes)
    labels = torch.arange(shape[0]) % classes
    for trial in range(50):
        seed = f"images {trial}"
        images = torch.from_numpy(noise(seed, int(np.prod(shape))).reshape(shape))
        exact = results(model, images, labels, torch.float64)
        single = results(model, images, labels, torch.float32)
        shaken = [results(model, images + shake(j, images), labels, torch.float32) for j in range(3)]
        if name in WITHOUT_GRADIENTS:
            exact = {k: v for k, v in exact.items() if not k.startswith("grad.")}
        largest = {k: float(np.abs(v).max()) for k, v in exact.items()}
        norms = {k: float(np.sqrt((v**2).sum())) for k, v in exact.items()}
        errors = {k: float(np.abs(v - single[k]).max() / max(largest[k], 1e-300)) for k, v in exact.items()}
        # A ReLU whose input is within rounding of 0 lets the gradient jump: other images then.
        real = [k for k in exact if largest[k] > 1e-9]
        if all(np.abs(exact[k] - run[k]).max() < 5e-4 * largest[k] for k in real for run in [single, *shaken]):
            break
    else:
        raise SystemExit(f"{case}: no images without such a ReLU")
    tensors = {k: sampled(v) if k.startswith("grad.") else v for k, v in exact.items()}
    state = {k: ("I64" if v.dtype == torch.int64 else "F32", list(v.shape)) for k, v in model.state_dict().items()}
    metadata = {
        "model": name, "form": form, "norm": norm, "width": width, "classes": classes,
        "images": shape, "seed": seed, "state_dict": state, "largest": largest, "l2_norm": norms, "f32_rel_err": errors,
    }
    path = out / f"{name}_{form}_{norm}.safetensors"
    write(path, tensors, {k: v if isinstance(v, str) else json.dumps(v) for k, v in metadata.items()})
    worst = max(errors, key=lambda k: errors[k] if largest[k] > 1e-9 else 0)
    print(f"{path.name}: {path.stat().st_size} bytes, {seed}, loss {exact['loss'][0]:.4f},",
          f"float32 is off by {errors['logits']:.1e} (logits) to {errors[worst]:.1e} ({worst})")


# Networks that train: 40 steps of SGD on eight batches in turn. Case, learning rate, block and eps of deconvolution. Each
# covariance needs more rows than features: otherwise torch in float32 is off by a fifth after 40 steps (ResNet-18 above).
TRAININGS = [
    (("vgg11", "cifar", "batch", 1 / 8, 10, [8, 3, 32, 32]), 0.005, 64, 1e-5),
    (("cnn", "cifar", "deconv", 1 / 4, 10, [128, 1, 12, 12]), 0.02, 8, 1e-3),
]
STEPS, BATCHES, MOMENTUM, WEIGHT_DECAY = 40, 8, 0.9, 1e-3


def losses(case, lr, block, eps, dtype):
    name, form, norm, width, classes, shape = case
    model = network(name, form, norm, width, classes, block).to(dtype)
    fill(model)
    for layer in model.modules():
        if isinstance(layer, Deconv):
            layer.eps = eps
    sgd = torch.optim.SGD(model.parameters(), lr, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY)
    labels = torch.arange(shape[0]) % classes
    found = []
    for step in range(STEPS):
        images = noise(f"batch {step % BATCHES}", int(np.prod(shape))).reshape(shape)
        loss = nn.functional.cross_entropy(model.train()(torch.from_numpy(images).to(dtype)), labels)
        sgd.zero_grad()
        loss.backward()
        sgd.step()
        found.append(float(loss.detach()))
    return found


def steps(path):
    cases = []
    for case, lr, block, eps in TRAININGS:
        exact, single = (losses(case, lr, block, eps, dtype) for dtype in [torch.float64, torch.float32])
        error = max(abs(a / b - 1) for a, b in zip(single, exact))
        name, form, norm, width, classes, shape = case
        cases.append({
            "model": name, "form": form, "norm": norm, "width": width, "classes": classes, "images": shape,
            "lr": lr, "block": block, "eps": eps, "momentum": MOMENTUM, "weight_decay": WEIGHT_DECAY, "batches": BATCHES,
            "losses": exact, "f32_rel_err": error,
        })
        print(name, norm, [round(loss, 4) for loss in exact], f"float32 is off by {error:.1e}")
    path.write_text(json.dumps(cases, indent=1) + "\n")


def full(out):
    """Full-size networks of torchvision with random weights: state dict and logits."""
    for name, norm in [("vgg11", "none"), ("vgg11_bn", "batch"), ("resnet18", "batch"),
                       ("resnet34", "batch"), ("resnet50", "batch"), ("densenet121", "batch")]:
        torch.manual_seed(1)
        model = getattr(torchvision.models, name)(weights=None)
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.running_var, 0.5, 1.5)
                nn.init.normal_(module.running_mean, 0, 0.1)
        shape = [2, 3, 224, 224]
        images = torch.from_numpy(noise("images 0", int(np.prod(shape))).reshape(shape)).float()
        single = model.eval()(images).detach().double().numpy()
        write(out / f"{name}.state.safetensors", {k: v.numpy() for k, v in model.state_dict().items()}, {})
        logits = model.double()(images.double()).detach().numpy()
        metadata = {"model": name.removesuffix("_bn"), "norm": norm, "images": json.dumps(shape), "seed": "images 0",
                    "f32_rel_err": json.dumps(float(np.abs(single - logits).max() / np.abs(logits).max()))}
        write(out / f"{name}.logits.safetensors", {"logits": logits}, metadata)
        print(name, metadata["f32_rel_err"])


def load(out):
    """Loads files of decorr into torchvision's networks: only num_batches_tracked may be missing."""
    for path in sorted(out.glob("*.decorr.safetensors")):
        name = path.name.split(".")[0]
        model = getattr(torchvision.models, name)(weights=None)
        result = model.load_state_dict(read(path), strict=False)
        missing = [k for k in result.missing_keys if not k.endswith("num_batches_tracked")]
        assert not missing and not result.unexpected_keys, (missing, result.unexpected_keys)
        images = torch.from_numpy(noise("images 0", 2 * 3 * 224 * 224).reshape(2, 3, 224, 224)).float()
        logits = model.eval()(images).detach()
        expected = read(out / f"{name}.logits.safetensors")["logits"]
        print(f"{path.name}: loaded, logits off by {(logits - expected).abs().max() / expected.abs().max():.1e}")


# safetensors, so that nothing needs to be installed for it.


def write(path, tensors, metadata):
    header, blobs, offset = {"__metadata__": metadata}, [], 0
    for name, values in tensors.items():
        kind = "I64" if values.dtype == np.int64 else "F32"
        blob = values.astype("<i8" if kind == "I64" else "<f4").tobytes()
        header[name] = {"dtype": kind, "shape": list(values.shape), "data_offsets": [offset, offset + len(blob)]}
        blobs.append(blob)
        offset += len(blob)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(blobs))


def read(path):
    data = pathlib.Path(path).read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    header, body = json.loads(data[8 : 8 + length]), data[8 + length :]
    header.pop("__metadata__", None)
    tensors = {}
    for name, entry in header.items():
        first, last = entry["data_offsets"]
        values = np.frombuffer(body[first:last], "<f4").reshape(entry["shape"])
        tensors[name] = torch.from_numpy(values.copy())
    return tensors


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", type=pathlib.Path, metavar="DIR")
    parser.add_argument("--steps", action="store_true")
    parser.add_argument("--load", type=pathlib.Path, metavar="DIR")
    arguments = parser.parse_args()
    if arguments.steps:
        steps(HERE / "steps.json")
    elif arguments.full:
        full(arguments.full)
    elif arguments.load:
        load(arguments.load)
    else:
        for case in CASES:
            make(case, HERE)
