from ferserve.faces.cpu import Cpu, read_cpu


def test_the_cpu_is_read_from_linux(tmp_path):
    path = tmp_path / "cpuinfo"
    path.write_text("processor\t: 0\nmodel name\t: Some CPU\nflags\t\t: sse avx2 avx512_vnni\n")
    assert read_cpu(path) == Cpu(name="Some CPU", vnni=True)
    path.write_text("processor\t: 0\nmodel name\t: Newer CPU\nflags\t\t: sse avx2 avx_vnni\n")
    assert read_cpu(path) == Cpu(name="Newer CPU", vnni=True)
    path.write_text("processor\t: 0\nmodel name\t: Older CPU\nflags\t\t: sse avx2\n")
    assert read_cpu(path) == Cpu(name="Older CPU", vnni=False)


def test_what_the_system_does_not_say_is_unknown(tmp_path):
    path = tmp_path / "cpuinfo"
    path.write_text("processor\t: 0\nFeatures\t: fp asimd asimddp\n")
    assert read_cpu(path) == read_cpu(tmp_path / "none") == Cpu(name="unknown", vnni=None)
