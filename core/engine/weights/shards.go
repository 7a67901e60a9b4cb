package weights

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"
)

// errMissingShard tells an index without a shard from a directory without an index.
var errMissingShard = errors.New("a shard is missing")

// openShards opens every file that an index names and checks that index and files agree: each
// tensor stands in exactly the shard that the index says.
func openShards(src source, name string) (_ *File, err error) {
	data, release, err := src.open(name)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	home, metadata, err := parseIndex(data)
	if err = errors.Join(err, release()); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	all := &File{tensors: map[string]Tensor{}, metadata: metadata}
	defer func() {
		if err != nil {
			err = errors.Join(err, all.Close())
		}
	}()
	shards := slices.Sorted(maps.Values(home))
	for _, shard := range slices.Compact(shards) {
		f, err := openNamed(src, shard)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("%s: %w: %s; download it again: %w", name, errMissingShard, shard, err)
		}
		if err != nil {
			return nil, err
		}
		all.release = append(all.release, f.release...)
		for _, tensor := range f.Names() {
			switch want, ok := home[tensor]; {
			case !ok:
				return nil, fmt.Errorf("%s: %s holds tensor %q, which the index does not list", name, shard, tensor)
			case want != shard:
				return nil, fmt.Errorf("%s: tensor %q stands in %s, the index says %s", name, tensor, shard, want)
			}
			all.tensors[tensor] = f.tensors[tensor]
		}
	}
	for _, tensor := range slices.Sorted(maps.Keys(home)) {
		if _, ok := all.tensors[tensor]; !ok {
			return nil, fmt.Errorf("%s: tensor %q is not in %s, where the index says it is", name, tensor, home[tensor])
		}
	}
	return all, nil
}

// parseIndex reads {"metadata": {"total_size": 123}, "weight_map": {"a.weight": "model-00001-of-00002.safetensors"}}
// and returns the weight map, and the metadata as text.
func parseIndex(data []byte) (home, metadata map[string]string, err error) {
	if !utf8.Valid(data) {
		return nil, nil, errors.New("the index is not valid UTF-8")
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	err = readObject(d, func(key string) error {
		var err error
		switch key {
		case "weight_map":
			home, err = readStrings(d)
		case "metadata":
			metadata, err = readScalars(d)
		default:
			err = errors.New("unknown key")
		}
		return inside(key, err)
	})
	if err == nil {
		err = expectEnd(d)
	}
	if err == nil && home == nil {
		err = errors.New(`"weight_map" is missing`)
	}
	if errors.Is(err, io.ErrUnexpectedEOF) {
		err = fmt.Errorf("the index is truncated: %w", err)
	}
	if err != nil {
		return nil, nil, err
	}
	for _, tensor := range slices.Sorted(maps.Keys(home)) {
		shard := home[tensor]
		if strings.ContainsAny(shard, `/\:`) || !fs.ValidPath(shard) || !strings.HasSuffix(shard, ".safetensors") {
			return nil, nil, fmt.Errorf("tensor %q: %q is not the name of a .safetensors file beside the index", tensor, shard)
		}
	}
	return home, metadata, nil
}

// readScalars reads an object of strings, numbers, booleans and nulls as text.
func readScalars(d *json.Decoder) (map[string]string, error) {
	out := map[string]string{}
	err := readObject(d, func(key string) error {
		t, err := token(d)
		if _, nested := t.(json.Delim); nested {
			err = errors.New("found a list or an object where a single value belongs")
		}
		out[key] = fmt.Sprint(t)
		return inside(key, err)
	})
	return out, err
}
