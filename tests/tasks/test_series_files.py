import numpy as np
import pytest

from ember_keras.tasks import TimeSeries
from ember_keras.tasks.series_files import read_series


@pytest.fixture
def write(tmp_path):
    """Writes text, or bytes, to a file of this name and gives its path."""

    def save(name, content):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return str(path)

    return save


def test_csv(write):
    found = read_series(write("a.csv", "t0,y,t1\n1, up ,2\n\n3,down,\n"))
    assert np.array_equal(found["x"][:, :, 0], [[1, 2], [3, np.nan]], equal_nan=True)
    assert found["y"].tolist() == ["up", "down"]
    assert set(read_series(write("a.csv", "\ufefft0,t1\n1,2\n"))) == {"x"}


def test_csv_trains_and_names_its_test_file(write):
    rows = "".join(f"{at},{at * at},{'ab'[at % 2]}\n" for at in range(8))
    train, test = write("a.csv", "t0,t1,y\n" + rows), write("b.csv", "t0,t1,y\n1,1,b\n2,4,a\n")
    data = TimeSeries(files=train, test_files=test).load(0)
    assert data.train.x.shape == (8, 2, 1) and data.test.y.tolist() == [1, 0]
    assert np.allclose(data.test.x, data.train.x[[1, 2]])


TS = "#c\n@problemName P\n@timeStamps false\n@classLabel true a b\n@data\n"


def test_ts(write):
    found = read_series(write("a.ts", TS + "1,2,3:4,?,6:a\n7,8,9:1,2,3:b\n"))
    assert found["x"].shape == (2, 3, 2) and found["y"].tolist() == ["a", "b"]
    assert np.array_equal(found["x"][0], [[1, 4], [2, np.nan], [3, 6]], equal_nan=True)


def test_npy_has_no_targets(tmp_path):
    np.save(tmp_path / "a.npy", np.arange(6).reshape(2, 3))
    found = read_series(str(tmp_path / "a.npy"))
    assert found["x"].shape == (2, 3, 1) and found["x"].dtype == np.float64 and len(found) == 1


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("a.txt", "1,2", "ending in .npz"),
        ("a.csv", "", "0 rows"),
        ("a.csv", "t0,y\n", "1 rows"),
        ("a.csv", "1,2\n3,4\n", "first row is numbers"),
        ("a.csv", "t0,t1,y\n1,2,a\n1,b\n", "2 cells in row 3"),
        ("a.csv", "t0,y,t1\n1,a,2\n1,a,x\n", "'x' at row 3, column t1"),
        ("a.csv", "y\na\n", "at least one sample, one step"),
        ("a.csv", b"t0,y\n\xff,a\n", "no UTF-8 CSV"),
        ("a.ts", "@data\n", "no samples"),
        ("a.ts", TS + "1,2:a\n1,2,3:b\n", "2 to 3 steps"),
        ("a.ts", TS + "1,2:3,4:a\n1,2:b\n", r"\[1, 2\] channels"),
        ("a.ts", TS + "1,z:a\n", "'z' at line 6, channel 0, step 1"),
        ("a.ts", "@timestamps true\n@data\n(1,2)\n", "time stamps"),
        ("a.ts", b"\xff", "no UTF-8 text"),
        ("a.npz", "", "truncated or no .npz|no plain|no .npz"),
        ("a.npz", "hello there", "no .npz"),
        ("a.npz", b"PK\x03\x04 cut short", "truncated"),
        ("a.npy", "hello there", "no plain array"),
    ],
)
def test_unusable_content_is_refused_with_where(write, name, content, problem):
    with pytest.raises(ValueError, match=problem):
        read_series(write(name, content))


def test_missing_files_and_folders_are_refused(tmp_path):
    with pytest.raises(ValueError, match="there is nothing"):
        read_series(str(tmp_path / "missing.npz"))
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(ValueError, match="cannot be read"):
        read_series(str(tmp_path / "folder.csv"))


def test_archives_hold_plain_arrays_of_known_names(tmp_path):
    path = tmp_path / "a.npz"
    ragged = np.empty(2, object)
    ragged[:] = [[1, 2], [3]]
    np.savez(path, x=ragged, y=[0, 1])
    with pytest.raises(ValueError, match="one shape"):
        read_series(str(path))
    np.savez(path, X=np.zeros((2, 3)), y=[0, 1])
    with pytest.raises(ValueError, match="X, y(.|\n)*expected `x`"):
        read_series(str(path))
    np.savez(path)
    with pytest.raises(ValueError, match="no arrays"):
        read_series(str(path))
    np.savez(path, x=np.zeros((4, 300)), y=np.zeros(4))
    path.write_bytes(path.read_bytes()[:900])
    with pytest.raises(ValueError, match="truncated"):
        read_series(str(path))
    np.save(tmp_path / "b.npy", np.zeros((2, 3)))
    (tmp_path / "b.npy").rename(path)
    with pytest.raises(ValueError, match="no .npz archive"):
        read_series(str(path))
