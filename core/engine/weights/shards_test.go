package weights

import (
	"slices"
	"strings"
	"testing"
	"testing/fstest"
)

func TestShards(t *testing.T) {
	t.Parallel()
	const first, second = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
	a := write(t, []Out{{"a", []int{1}, F32, []float32{1}}}, nil)
	b := write(t, []Out{{"b", []int{1}, F16, []float32{2}}, {"c", []int{1}, F32, []float32{3}}}, nil)
	good := `{"metadata":{"total_size":10},"weight_map":{"a":"` + first + `","b":"` + second + `","c":"` + second + `"}}`
	model := func(index string, files map[string][]byte) fstest.MapFS {
		out := fstest.MapFS{indexName: {Data: []byte(index)}}
		for name, data := range files {
			out[name] = &fstest.MapFile{Data: data}
		}
		return out
	}
	both := map[string][]byte{first: a, second: b}

	f, err := OpenFS(model(good, both), ".")
	if err != nil {
		t.Fatal(err)
	}
	if got := f.Names(); !slices.Equal(got, []string{"a", "b", "c"}) {
		t.Errorf("names %q", got)
	}
	if got := []float32{floats(t, f, "a")[0], floats(t, f, "b")[0], floats(t, f, "c")[0]}; !slices.Equal(got, []float32{1, 2, 3}) {
		t.Errorf("values %v", got)
	}
	if got := f.Metadata()["total_size"]; got != "10" {
		t.Errorf("total_size %q", got)
	}

	cases := map[string]struct {
		model fstest.MapFS
		want  string
	}{
		"a missing shard is named":           {model(good, map[string][]byte{first: a}), second},
		"a shard outside the directory":      {model(strings.Replace(good, first, "../"+first, 1), both), `tensor "a"`},
		"a shard by its absolute path":       {model(strings.Replace(good, first, "/"+first, 1), both), `tensor "a"`},
		"a shard with a Windows path":        {model(strings.Replace(good, first, `..\\`+first, 1), both), `tensor "a"`},
		"a shard that is another file":       {model(strings.Replace(good, first, "config.json", 1), both), `tensor "a"`},
		"a tensor listed twice":              {model(strings.Replace(good, `"b"`, `"a"`, 1), both), `"a" stands there twice`},
		"a tensor that the index omits":      {model(strings.Replace(good, `"b":"`+second+`",`, "", 1), both), `tensor "b"`},
		"a tensor that the shard lacks":      {model(strings.Replace(good, `"c"`, `"d"`, 1), both), `tensor "c"`},
		"a tensor that no shard holds":       {model(strings.Replace(good, `"a":`, `"z":"`+first+`","a":`, 1), both), `tensor "z"`},
		"a tensor in another shard":          {model(strings.Replace(good, `"c":"`+second, `"c":"`+first, 1), both), `tensor "c" stands in ` + second},
		"a broken shard":                     {model(good, map[string][]byte{first: a[:20], second: b}), first},
		"an index without a map":             {model(`{"metadata":{}}`, both), "weight_map"},
		"an index that ends early":           {model(good[:30], both), "truncated"},
		"an index with an unknown key":       {model(`{"weights":{}}`, both), `"weights"`},
		"an index whose map is a list":       {model(`{"weight_map":[]}`, both), "weight_map"},
		"an index with a map in the map":     {model(`{"weight_map":{"a":{}}}`, both), `"a"`},
		"an index with a nested metadata":    {model(`{"metadata":{"x":[]}}`, both), `"x"`},
		"an index that is not UTF-8":         {model("\xff", both), "UTF-8"},
		"an index with something after it":   {model(good+"{}", both), "follows"},
		"an index that is empty":             {model("", both), "truncated"},
		"the same tensor in both the shards": {model(good, map[string][]byte{first: b, second: b}), "stands in " + first},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := OpenFS(c.model, ".")
			if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "model") {
				t.Errorf("got %v, want an error that says %q", err, c.want)
			}
		})
	}
}

func TestOneFileGoesBeforeTheIndex(t *testing.T) {
	t.Parallel()
	f, err := OpenFS(fstest.MapFS{
		indexName:  {Data: []byte(`{"weight_map":{"x":"gone.safetensors"}}`)},
		singleName: {Data: write(t, []Out{{"a", nil, F32, []float32{1}}}, nil)},
	}, ".")
	if err != nil {
		t.Fatal(err)
	}
	if got := f.Names(); !slices.Equal(got, []string{"a"}) {
		t.Errorf("names %q", got)
	}
}

func FuzzIndex(f *testing.F) {
	f.Add([]byte(`{"metadata":{"total_size":10},"weight_map":{"a":"b.safetensors"}}`))
	f.Add([]byte(`{"weight_map":{"a":"../b.safetensors"}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		home, _, err := parseIndex(data)
		if err != nil {
			return
		}
		for _, shard := range home {
			if strings.ContainsAny(shard, `/\:`) || shard == ".." || !strings.HasSuffix(shard, ".safetensors") {
				t.Errorf("accepted the shard %q", shard)
			}
		}
	})
}
