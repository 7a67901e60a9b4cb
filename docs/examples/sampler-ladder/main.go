// Command dno-sampler-ladder serves the sampler to dno.
package main

import "github.com/dno-project/dno/sdk/serve"

func main() { serve.Sampler(New()) }
