"""A sampler that draws as its host's generator lets it."""

import dno_sdk as dno


class Sampler(dno.Sampler):
    manifest = dno.Manifest("edges", "1", "draws", uses_generator=True)

    def sample(self, request, generator):
        options = dno.GenerateOptions(temperature=0.5, max_tokens=7, top_k=3, stop=["\n"])
        return generator.generate([p.messages for p in request.prompts], request.seeds, options)


dno.serve(Sampler())
